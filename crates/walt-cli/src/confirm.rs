//! Confirmations: what the server asks for before it does something that others would notice.

use crate::commands::Context;
use crate::error::Failure;
use crate::ui::{self, Ui, prompt};
use walt_api::Confirmation;

/// Times a confirmation is asked for because the state of things changed meanwhile.
pub const MAX_CONFIRMATIONS: usize = 10;

/// The token that says that the user agrees; `yes` agrees without asking.
pub async fn agree(ui: &mut Ui, confirmation: Confirmation, yes: bool) -> Result<String, Failure> {
    if yes {
        confirmation.warnings.iter().for_each(|w| ui::note(w));
    } else {
        prompt::confirm(ui, &confirmation.warnings).await?;
    }
    Ok(confirmation.token)
}

/// Does `attempt`, first without a token, and again with one as often as the server asks for a confirmation; `yes`
/// agrees to all. `changed` is said if the state of things changes each time.
pub async fn confirmed<T>(
    context: &mut Context,
    yes: bool,
    changed: &str,
    mut attempt: impl AsyncFnMut(&mut Context, Option<String>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let mut token = None;
    for _ in 0..MAX_CONFIRMATIONS {
        let mut error = match attempt(context, token.take()).await {
            Err(Failure::Api(error)) => error,
            other => return other,
        };
        let Some(confirmation) = error.confirmation.take() else { return Err(Failure::Api(error)) };
        token = Some(agree(&mut context.ui, confirmation, yes).await?);
    }
    Err(Failure::new(changed))
}
