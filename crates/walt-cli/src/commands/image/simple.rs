//! The commands that are one action on the server.

use crate::commands::{Confirmed, Context};
use crate::error::Failure;
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

/// `walt image remove`
#[derive(Debug, Args)]
pub struct Remove {
    image_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Remove {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(ImageAction::Remove { name: self.image_name }, self.confirmed.yes).await
    }
}

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

/// `walt image squash`
#[derive(Debug, Args)]
pub struct Squash {
    image_name: String,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Squash {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        context.action(ImageAction::Squash { name: self.image_name }, self.confirmed.yes).await
    }
}
