//! `walt advanced update-hub-meta`

use crate::{context::Context, error::Failure, registries};
use clap::Args;
use walt_api::ImageAction;

/// `walt advanced update-hub-meta`
#[derive(Debug, Args)]
pub struct UpdateHubMeta {
    /// update the account of the platform's default images (requires the right to push to it)
    #[arg(long)]
    waltplatform_user: bool,
}

impl UpdateHubMeta {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let hub = registries::list(context).await?.into_iter().find(|r| r.hub);
        let hub = hub.ok_or_else(|| {
            Failure::with_hint(
                "the docker hub is not among the registries of this server.",
                "(see 'walt help show registries')",
            )
        })?;
        let platform = self.waltplatform_user;
        registries::act_with_credentials(context, &hub, true, |credentials| ImageAction::UpdateHubMeta {
            platform,
            credentials,
        })
        .await
    }
}
