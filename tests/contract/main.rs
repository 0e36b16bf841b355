//! One suite for each seam, run over every adapter: the rules that the traits' documentation
//! states, by name. Adding an adapter is a line in a macro, and no new tests.

mod cache;
mod event_queue;
mod lock;
mod pub_sub;
mod pub_sub_log;
mod server;
mod worker_id;
