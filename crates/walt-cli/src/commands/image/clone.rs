//! `walt image clone`

use crate::{commands::options::Confirmed, context::Context, error::Failure, registries};
use clap::Args;
use walt_api::ImageAction;

/// `walt image clone`
#[derive(Debug, Args)]
pub struct Clone {
    clonable_image_link: String,
    image_name: Option<String>,
    /// overwrite an image of yours that has the same name
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Clone {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Self { clonable_image_link: link, image_name: name, force, confirmed } = self;
        let location = link.split(':').next().unwrap_or_default();
        let registry = match location {
            "walt" | "docker" => None,
            label => registries::by_label(context, label).await?,
        };
        let action =
            |credentials| ImageAction::Clone { link: link.clone(), name: name.clone(), force, credentials };
        match registry {
            Some(registry) => {
                let needed = !registry.anonymous_reads;
                registries::act_with_credentials(context, &registry, needed, action).await
            }
            None => context.action(action(None), confirmed.yes).await,
        }
    }
}
