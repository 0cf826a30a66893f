//! `walt image rename`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt image rename`
#[derive(Debug, Args)]
pub struct Rename {
    image_name: String,
    new_image_name: String,
}

impl Rename {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = ImageAction::Rename { name: self.image_name, new_name: self.new_image_name };
        context.action(action, false).await
    }
}
