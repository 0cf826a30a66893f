//! Actions on devices of any type: dispatch; rename.

use crate::{
    actions::{
        app::App,
        audit,
        device_list::{self, AnyDevice},
        node_actions::Request,
    },
    base::{
        db::DeviceRow,
        events::Events,
        failure::{Failure, Outcome, bad_request, not_found, refused},
    },
};
use std::sync::Arc;
use walt_api::DeviceAction;
use walt_types::{
    NodeName, UserName,
    node_set::{self, SetError},
};

/// Carries out an action; false if part of it failed (the events say why).
pub async fn act(
    app: &Arc<App>,
    caller: &UserName,
    action: DeviceAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let deed = audit::of_device(caller, &action);
    audit::said(app, deed, carry_out(app, caller, action, confirm, events)).await
}

async fn carry_out(
    app: &Arc<App>,
    caller: &UserName,
    action: DeviceAction,
    confirm: Option<String>,
    events: &Events,
) -> Outcome<bool> {
    let request = Request { app, caller, confirm: confirm.as_deref(), events };
    match action {
        DeviceAction::Rename { name, new_name } => request.rename_device(&name, &new_name).await,
        DeviceAction::Forget { name, force } => request.forget_device(&name, force).await,
        DeviceAction::Restore { name } => request.restore_device(&name).await,
        DeviceAction::Config { devices, settings, json } => {
            request.config_devices(&devices, &settings, json).await
        }
    }
}

/// The device of this name.
///
/// # Errors
/// There is none.
pub fn named(app: &App, name: &str) -> Outcome<AnyDevice> {
    device_list::find(app, name)?.ok_or_else(|| unknown(&SetError::Unknown(name.to_owned())))
}

/// The failure for a set of devices that cannot be resolved.
pub(super) fn unknown(error: &SetError) -> Failure {
    match error {
        SetError::Unknown(_) | SetError::Empty => not_found(error).hint("see 'walt device show'"),
        SetError::NotANode { .. } | SetError::NotOne | SetError::TooLong => bad_request(error),
    }
}

impl Request<'_> {
    /// Resolves a set of devices.
    pub(super) fn devices(&self, set: &str) -> Outcome<Vec<AnyDevice>> {
        let all = device_list::all(self.app)?;
        let members = node_set::resolve_devices(set, &all, self.caller).map_err(|e| unknown(&e))?;
        Ok(members.into_iter().map(|i| all[i].clone()).collect())
    }

    async fn rename_device(&self, name: &str, new_name: &str) -> Outcome<bool> {
        match named(self.app, name)? {
            AnyDevice::Server(_) => return Err(refused("the server cannot be renamed.")),
            AnyDevice::Node(_) => return self.rename(name, new_name).await,
            AnyDevice::Other(_) => {}
        }
        let new_name: NodeName = new_name.parse().map_err(|e| bad_request(format!("{e}.")))?;
        let decision = self.app.base().decide().await;
        // It may have become a node in the meantime.
        let found = self.app.db().with(|c| DeviceRow::by_name(c, name))?;
        let device = found.ok_or_else(|| unknown(&SetError::Unknown(name.to_owned())))?;
        if !device.name.as_str().eq_ignore_ascii_case(new_name.as_str()) {
            self.name_is_free(&new_name, &decision)?;
        }
        let renamed = DeviceRow { name: new_name, is_named: true, ..device };
        self.app.db().transaction(|tx| renamed.put(tx))?;
        Ok(true)
    }
}
