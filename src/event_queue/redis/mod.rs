//! The event queue on Redis.
use super::{adapter::Environment, settings::Settings};
use crate::redis::Config;
use std::sync::Arc;
pub struct RedisQueue;
impl RedisQueue {
    pub fn open(_: Config, _: Settings, _: Arc<dyn Environment>, _: &tokio::runtime::Handle) -> Arc<dyn super::adapter::EventQueueAdapter> { todo!() }
}
