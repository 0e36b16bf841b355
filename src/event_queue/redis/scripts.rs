//! The scripts; each is one round trip. Their keys, arguments and answers stand at the top of the files in `lua/`.

use crate::redis::{Command, Script};
use std::sync::LazyLock;

macro_rules! scripts {
    ($($name:ident = $file:literal),* $(,)?) => {
        $(
            pub static $name: LazyLock<Script> = LazyLock::new(|| {
                let common = include_str!("lua/common.lua");
                Script::new(format!("{common}{}", include_str!(concat!("lua/", $file, ".lua"))))
            });
        )*

        /// The commands that make all scripts known.
        pub fn load() -> Vec<Command> {
            vec![$($name.load()),*]
        }
    };
}

scripts! {
    PUBLISH_WITH = "publish_with",
    LOOK = "look",
    DONE = "done",
    FAIL = "fail",
    REAP = "reap",
    CANCEL = "cancel",
    COUNTS = "counts",
    PAUSE = "pause",
    REPLAY = "replay",
    WAKE = "wake",
    LEAVE = "leave",
}
