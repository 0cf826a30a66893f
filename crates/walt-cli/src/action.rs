//! Actions: requests to the server that change something.

use walt_api::{DeviceAction, ImageAction, NodeAction, SessionAction, logs::LogAction};
use walt_client::{Client, Reply};

/// An action of any kind.
#[derive(Debug, Clone)]
pub enum Action {
    /// On nodes.
    Node(NodeAction),
    /// On devices.
    Device(DeviceAction),
    /// On images.
    Image(ImageAction),
    /// On an image shell's session.
    Session(SessionAction),
    /// On checkpoints.
    Log(LogAction),
}

impl Action {
    /// Sends it once; `token` confirms what an earlier attempt asked about.
    pub async fn send(&self, client: &mut Client, token: Option<&str>) -> walt_client::Result<Reply> {
        match self {
            Self::Node(action) => client.node_action(action, token).await,
            Self::Device(action) => client.device_action(action, token).await,
            Self::Image(action) => client.image_action(action, token).await,
            Self::Session(action) => client.session_action(action, token).await,
            Self::Log(action) => client.log_action(action, token).await,
        }
    }
}

impl From<NodeAction> for Action {
    fn from(action: NodeAction) -> Self {
        Self::Node(action)
    }
}

impl From<DeviceAction> for Action {
    fn from(action: DeviceAction) -> Self {
        Self::Device(action)
    }
}

impl From<ImageAction> for Action {
    fn from(action: ImageAction) -> Self {
        Self::Image(action)
    }
}

impl From<LogAction> for Action {
    fn from(action: LogAction) -> Self {
        Self::Log(action)
    }
}

impl From<SessionAction> for Action {
    fn from(action: SessionAction) -> Self {
        Self::Session(action)
    }
}
