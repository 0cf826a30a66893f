//! Interfaces of any kind: looked up, renamed, brought up, removed.

use super::{NetError, Result, except, netlink, refused};
use futures_util::TryStreamExt;
use rtnetlink::packet_route::link::{InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec};

/// What the kernel says about one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Index, unique in its network namespace.
    pub index: u32,
    /// Name.
    pub name: String,
    /// Kind of a virtual interface (`bridge`, `veth`, `tun`), empty for a physical one.
    pub kind: String,
    /// The free text attached to it, empty if none.
    pub alias: String,
    /// Largest packet, in bytes.
    pub mtu: u32,
    /// Index of the bridge it is attached to.
    pub controller: Option<u32>,
    /// Ethernet address, empty for an interface without one.
    pub address: Vec<u8>,
    /// Whether it is administratively up.
    pub up: bool,
    /// Whether it has a carrier: a cable with a station at its other end.
    pub carrier: bool,
    /// Whether it is the loopback interface.
    pub is_loopback: bool,
    /// Index of the interface that it is made on, as a VLAN is.
    pub below: Option<u32>,
}

impl Link {
    fn from_message(message: &LinkMessage) -> Link {
        let mut link = Link {
            index: message.header.index,
            name: String::new(),
            kind: String::new(),
            alias: String::new(),
            mtu: 0,
            controller: None,
            address: Vec::new(),
            up: message.header.flags.contains(LinkFlags::Up),
            carrier: message.header.flags.contains(LinkFlags::LowerUp),
            is_loopback: message.header.flags.contains(LinkFlags::Loopback),
            below: None,
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::IfAlias(alias) => link.alias = alias.trim_end_matches('\0').to_owned(),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => link.controller = (*index != 0).then_some(*index),
                LinkAttribute::Address(address) => link.address.clone_from(address),
                LinkAttribute::Link(index) => link.below = Some(*index),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind_name(kind);
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }
}

fn kind_name(kind: &InfoKind) -> String {
    match kind {
        InfoKind::Bridge => "bridge".into(),
        InfoKind::Veth => "veth".into(),
        InfoKind::Tun => "tun".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}

/// The interface of this name, if there is one.
pub(super) async fn find(handle: &Handle, name: &str) -> Result<Option<Link>> {
    let mut answers = handle.link().get().match_name(name).execute();
    match answers.try_next().await {
        Ok(message) => Ok(message.as_ref().map(Link::from_message)),
        Err(rtnetlink::Error::NetlinkError(m)) if m.raw_code() == -libc::ENODEV => Ok(None),
        Err(error) => Err(refused(format!("look up the interface '{name}'"))(error)),
    }
}

/// The interface of this name, which must be there.
pub(super) async fn need(handle: &Handle, name: &str) -> Result<Link> {
    find(handle, name).await?.ok_or_else(|| NetError::NoLink(name.to_owned()))
}

/// Changes an interface as the message says.
pub(super) async fn set(handle: &Handle, message: LinkMessage, what: String) -> Result<()> {
    handle.link().set(message).execute().await.map_err(refused(what))
}

/// A change to the interface with this index.
pub(super) fn change(index: u32) -> LinkMessageBuilder<LinkUnspec> {
    LinkUnspec::new_with_index(index)
}

/// The interface of this name, if there is one.
///
/// # Errors
/// When the kernel refuses or does not answer.
pub fn get(name: &str) -> Result<Option<Link>> {
    let what = format!("look up the interface '{name}'");
    netlink(&what, |handle| async move { find(&handle, name).await })
}

/// All interfaces of the namespace, in the kernel's order.
///
/// # Errors
/// When the kernel refuses or does not answer.
pub fn list() -> Result<Vec<Link>> {
    netlink("list the interfaces", |handle| async move {
        let answers = handle.link().get().execute();
        let messages: Vec<LinkMessage> =
            answers.try_collect().await.map_err(refused("list the interfaces"))?;
        Ok(messages.iter().map(Link::from_message).collect())
    })
}

/// Removes the interface of this name. Its absence is success. Of a veth pair, both ends go.
///
/// # Errors
/// When the kernel refuses, as it does for a physical interface.
pub fn remove(name: &str) -> Result<()> {
    let what = format!("remove the interface '{name}'");
    netlink(&what.clone(), |handle| async move {
        match find(&handle, name).await? {
            None => Ok(()),
            Some(link) => except(libc::ENODEV, handle.link().del(link.index).execute().await, what),
        }
    })
}
