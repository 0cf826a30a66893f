//! `walt image rollback`

use crate::{commands::options::Confirmed, context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt image rollback`
#[derive(Debug, Args)]
pub struct Rollback {
    image_name: String,
    /// number of a version in 'walt image history'
    version: Option<u32>,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Rollback {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = ImageAction::Rollback { name: self.image_name, version: self.version };
        context.action(action, self.confirmed.yes).await
    }
}
