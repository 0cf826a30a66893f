//! Credentials for registries: read from the user's files, or asked for.
//!
//! ```text
//! stored (walt_client::credentials) ─▶ the action ─▶ done
//!                                         │ the registry rejects them
//!                                         ▼
//!          ask on the terminal ─▶ try ─▶ save in ~/.walt/config ─▶ the action, once more
//! ```

use crate::{
    context::Context,
    error::Failure,
    events,
    terminal::NoEcho,
    ui::{self, prompt::Dialog},
};
use std::collections::BTreeMap;
use walt_api::{ErrorCode, ImageAction, RegistryCredentials, RegistryInfo};
use walt_client::credentials;

/// The registry with a label, if the server has it in its configuration.
pub async fn by_label(context: &mut Context, label: &str) -> Result<Option<RegistryInfo>, Failure> {
    Ok(list(context).await?.into_iter().find(|r| r.label == label))
}

/// All registries of the server's configuration.
pub async fn list(context: &mut Context) -> Result<Vec<RegistryInfo>, Failure> {
    Ok(context.ui.watch(context.client.registries()).await?.registries)
}

/// The user's stored credentials for a registry.
pub async fn stored(context: &mut Context, registry: &RegistryInfo) -> Option<RegistryCredentials> {
    if registry.anonymous {
        return None;
    }
    let ui = &mut context.ui;
    credentials::find(registry, &mut |line| ui.note(&format!("Note: {line}"))).await
}

/// Credentials for the registry that the server names by its label. `needed`: the stored ones were rejected, so an
/// interactive user is asked.
pub async fn credentials_for(
    context: &mut Context,
    label: &str,
    needed: bool,
) -> Result<Option<RegistryCredentials>, Failure> {
    let Some(registry) = by_label(context, label).await? else { return Ok(None) };
    match needed {
        false => Ok(stored(context, &registry).await),
        true if context.ui.interactive => prompt(context, &registry).await.map(Some),
        true => Ok(None),
    }
}

/// The user's stored credentials for all registries, by label.
pub async fn all_credentials(
    context: &mut Context,
) -> Result<BTreeMap<String, RegistryCredentials>, Failure> {
    let mut found = BTreeMap::new();
    for registry in list(context).await? {
        if let Some(credentials) = stored(context, &registry).await {
            found.insert(registry.label, credentials);
        }
    }
    Ok(found)
}

/// Carries out an action that talks to a registry. `needed`: it cannot succeed without credentials.
pub async fn act_with_credentials(
    context: &mut Context,
    registry: &RegistryInfo,
    needed: bool,
    action: impl Fn(Option<RegistryCredentials>) -> ImageAction,
) -> Result<(), Failure> {
    let mut credentials = stored(context, registry).await;
    if needed && credentials.is_none() {
        credentials = Some(prompt(context, registry).await?);
    }
    match context.action(action(credentials), false).await {
        Err(Failure::Api(error)) if error.code == ErrorCode::Credentials && !registry.anonymous => {
            let credentials = prompt(context, registry).await?;
            context.action(action(Some(credentials)), false).await
        }
        other => other,
    }
}

/// Asks for credentials until the registry accepts them, and saves them.
async fn prompt(context: &mut Context, registry: &RegistryInfo) -> Result<RegistryCredentials, Failure> {
    let label = &registry.label;
    let missing = format!("credentials for {label} registry are missing or invalid.");
    if !context.ui.interactive {
        return Err(Failure::with_hint(
            missing,
            "Add them to ~/.walt/config or to a file of docker or podman (see 'walt help show registries'), \
             or run this command on a terminal.",
        ));
    }
    context.note(&missing);
    loop {
        let username = context.ask("username: ").await?.line()?;
        let question = if registry.hub { "password: " } else { "password (or token): " };
        let answer = {
            let _silent = NoEcho::enter()?;
            context.ask(question).await
        };
        ui::note("");
        let credentials = RegistryCredentials { username, password: answer?.line()? };
        match login(context, label, &credentials).await {
            Ok(()) => {
                match credentials::config::keep(label, &credentials) {
                    Ok(path) => context.note(&format!("Configuration was updated in {}.", path.display())),
                    Err(e) => context.note(&format!("Note: cannot save the credentials: {e}.")),
                }
                return Ok(credentials);
            }
            Err(Failure::Api(error)) if error.code == ErrorCode::Credentials => {
                context.note(&format!("Sorry, {label} registry login FAILED."));
            }
            Err(other) => return Err(other),
        }
    }
}

async fn login(context: &mut Context, label: &str, credentials: &RegistryCredentials) -> Result<(), Failure> {
    let action = ImageAction::RegistryLogin { registry: label.to_owned(), credentials: credentials.clone() };
    let events = context.start(action).await?;
    events::follow_silently(&mut context.ui, events).await
}
