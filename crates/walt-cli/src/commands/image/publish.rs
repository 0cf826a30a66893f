//! `walt image publish`

use crate::{context::Context, error::Failure, registries};
use clap::Args;
use walt_api::ImageAction;

/// `walt image publish`
#[derive(Debug, Args)]
pub struct Publish {
    image_name: String,
    /// registry to publish to
    #[arg(long, value_name = "REGISTRY:str", default_value = "auto")]
    registry: String,
}

impl Publish {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let all = registries::list(context).await?;
        // The server chooses the registry; where the choice is clear, credentials go with the request.
        let chosen = match all.as_slice() {
            [one] if self.registry == "auto" => Some(one),
            several => several.iter().find(|r| r.label == self.registry),
        };
        let action = |credentials| ImageAction::Publish {
            name: self.image_name.clone(),
            registry: Some(self.registry.clone()),
            credentials,
        };
        match chosen {
            Some(registry) => {
                registries::act_with_credentials(context, registry, !registry.anonymous, action).await
            }
            None => context.action(action(None), false).await,
        }
    }
}
