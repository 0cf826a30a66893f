//! Pure decisions of the server: who owns what, where a node stands, what must be
//! asked before something is done. No sockets, no clock, no disk: facts in, verdicts out.
//!
//! | module | decides |
//! |---|---|
//! | [`ownership`] | whether an operation on them is allowed, refused, or must be asked |
//! | [`node_leases`] | when a lease of a node is over, and how its end changes |
//! | [`node_queue`] | whose turn it is of those who wait for nodes |
//! | [`confirm`] | the token by which an answer is tied to the state it was given in |
//! | [`boots`] | what a boot's record says, and which boot was slow |
//! | [`life`] | whether a node is off, booting, booted or down |
//! | [`firewall`] | the text of the nft tables |
//! | [`segments`] | names of the interfaces of networks and links, addresses of cards |
//! | [`registration`] | type and name of a machine that shows up by DHCP |
//! | [`image_search`] | when the missing image of a model is looked for |
//! | [`settings`] | keys, grammars and defaults of node settings |
//! | [`sentences`] | wording shared by many messages |

pub mod boots;
pub mod confirm;
pub mod firewall;
pub mod image_search;
pub mod life;
pub mod node_leases;
pub mod node_queue;
pub mod ownership;
pub mod registration;
pub mod segments;
pub mod sentences;
pub mod settings;

use walt_types::{ImageRef, Model, NodeName};

/// What decisions need to know about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeFacts {
    /// Its name.
    pub name: NodeName,
    /// Its hardware model.
    pub model: Model,
    /// The image it is associated with.
    pub image: ImageRef,
    /// Whether the server runs it as a virtual machine.
    pub is_virtual: bool,
}

impl NodeFacts {
    /// Its owner: the user part of its image's reference.
    pub fn owner(&self) -> &str {
        self.image.user()
    }
    /// Whether nobody owns it.
    pub fn is_free(&self) -> bool {
        self.image.is_platform()
    }
}

/// The reference of the default image of a model.
pub fn default_image_of(model: &Model) -> ImageRef {
    let name = format!("{model}-default");
    // Invariant: a model is made of characters that an image name may have.
    ImageRef::platform(name.parse().expect("model names are image names"))
}

#[cfg(test)]
fn test_nodes() -> Vec<NodeFacts> {
    [("va1", "alice/x"), ("vb1", "bob/x"), ("free1", "waltplatform/pc-x86-64-default"), ("va2", "alice/y")]
        .into_iter()
        .map(|(name, image)| NodeFacts {
            name: name.parse().unwrap(),
            model: "pc-x86-64".parse().unwrap(),
            image: image.parse().unwrap(),
            is_virtual: true,
        })
        .collect()
}
