//! `walt image duplicate`

use crate::{context::Context, error::Failure};
use clap::Args;
use walt_api::ImageAction;

/// `walt image duplicate`
#[derive(Debug, Args)]
pub struct Duplicate {
    image_name: String,
    new_image_name: String,
}

impl Duplicate {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let action = ImageAction::Duplicate { name: self.image_name, new_name: self.new_image_name };
        context.action(action, false).await
    }
}
