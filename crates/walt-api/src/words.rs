//! Actions in words, for lists of what the server is busy with. Credentials are not part of them, nor are command lines, which
//! may have some.

use crate::{
    AdminAction, DeviceAction, ImageAction, NodeAction, SessionAction, build::OpenImageBuild,
    logs::LogAction, term::OpenNodeRun, transfer::What,
};

/// Longest text, in characters: sets of nodes may be lists of a thousand names.
pub const WORDS_MAX: usize = 200;

/// An action in the words of the command that asks for it.
pub trait Words {
    /// Its parts, without empty ones.
    fn parts(&self) -> Vec<&str>;

    /// The text, [`WORDS_MAX`] characters at most.
    fn words(&self) -> String {
        let text = self.parts().join(" ");
        if text.chars().count() <= WORDS_MAX {
            return text;
        }
        text.chars().take(WORDS_MAX - 1).chain(['…']).collect()
    }
}

/// With an optional word at its end.
fn and<'a>(mut words: Vec<&'a str>, last: Option<&'a String>) -> Vec<&'a str> {
    words.extend(last.map(String::as_str));
    words
}

impl Words for NodeAction {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::Create { name, image, .. } => and(vec!["node create", name], image.as_ref()),
            Self::Remove { name } => vec!["node remove", name],
            Self::Forget { name } => vec!["node forget", name],
            Self::Rename { name, new_name } => vec!["node rename", name, new_name],
            Self::Boot { nodes, image } => vec!["node boot", nodes, image],
            Self::Acquire { nodes, .. } => vec!["node acquire", nodes],
            Self::Lease { nodes, .. } => vec!["node lease", nodes],
            Self::Beat { .. } => vec!["heartbeat of a lease"],
            Self::EndHold { .. } => vec!["end of a lease"],
            Self::Release { nodes } => vec!["node release", nodes],
            Self::Reboot { nodes, .. } => vec!["node reboot", nodes],
            Self::Wait { nodes, .. } => vec!["node wait", nodes],
            Self::Blink { node, .. } => vec!["node blink", node],
            Self::Save { node, image, .. } => vec!["node save", node, image],
            Self::Link { nodes, network, .. } => vec!["node link", nodes, network],
            Self::Config { nodes, .. } => vec!["node config", nodes],
        }
    }
}

impl Words for DeviceAction {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::Rename { name, new_name } => vec!["device rename", name, new_name],
            Self::Forget { name, .. } => vec!["device forget", name],
            Self::Restore { name } => vec!["device restore", name],
            Self::Config { devices, .. } => vec!["device config", devices],
        }
    }
}

impl Words for ImageAction {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::Remove { name } => vec!["image remove", name],
            Self::Rename { name, new_name } => vec!["image rename", name, new_name],
            Self::Duplicate { name, new_name } => vec!["image duplicate", name, new_name],
            Self::Clone { link, name, .. } => and(vec!["image clone", link], name.as_ref()),
            Self::Rollback { name, .. } => vec!["image rollback", name],
            Self::Prune { name } => and(vec!["image prune"], name.as_ref()),
            Self::Squash { name } => vec!["image squash", name],
            Self::FixOwner { user, .. } => vec!["advanced fix-image-owner", user],
            Self::Search { keyword, .. } => and(vec!["image search"], keyword.as_ref()),
            Self::Publish { name, registry, .. } => and(vec!["image publish", name], registry.as_ref()),
            Self::RegistryLogin { registry, .. } => vec!["registry login", registry],
            Self::UpdateHubMeta { .. } => vec!["advanced update-hub-meta"],
            Self::UpdateDefaultImages { .. } => vec!["advanced update-default-images"],
        }
    }
}

impl Words for SessionAction {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::Save { name, .. } => and(vec!["image shell: save"], name.as_ref()),
            Self::Discard { .. } => vec!["image shell: discard"],
            Self::DiscardImage { image } => vec!["image shell --discard", image],
        }
    }
}

impl Words for AdminAction {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::ImportDefaultImage { name, .. } => vec!["import of the default image", name],
            Self::DhcpCommit { host_name, .. } => vec!["registration of", host_name],
            Self::Down => vec!["walt-server down"],
        }
    }
}

impl Words for LogAction {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::AddCheckpoint { name, .. } => vec!["log add-checkpoint", name],
            Self::RemoveCheckpoint { name } => vec!["log remove-checkpoint", name],
        }
    }
}

impl Words for OpenImageBuild {
    fn parts(&self) -> Vec<&str> {
        vec!["image build", &self.image]
    }
}

impl Words for OpenNodeRun {
    fn parts(&self) -> Vec<&str> {
        vec!["node run", &self.nodes]
    }
}

impl Words for What {
    fn parts(&self) -> Vec<&str> {
        match self {
            Self::ToImage { image, .. } => vec!["image cp: to", image],
            Self::FromImage { image, .. } => vec!["image cp: from", image],
            Self::ToNode { node, .. } => vec!["node cp: to", node],
            Self::FromNode { node, .. } => vec!["node cp: from", node],
            Self::NodeToImage { node, .. } => vec!["node cp: to the image of", node],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;

    fn of<A: Words + DeserializeOwned>(json: &str) -> String {
        serde_json::from_str::<A>(json).unwrap_or_else(|e| panic!("{json}: {e}")).words()
    }

    #[test]
    fn every_action_in_words() {
        for (json, words) in [
            (r#"{"action":"create","name":"a","image":"i"}"#, "node create a i"),
            (r#"{"action":"create","name":"a"}"#, "node create a"),
            (r#"{"action":"remove","name":"a"}"#, "node remove a"),
            (r#"{"action":"forget","name":"a"}"#, "node forget a"),
            (r#"{"action":"rename","name":"a","new_name":"b"}"#, "node rename a b"),
            (r#"{"action":"boot","nodes":"a,b","image":"i"}"#, "node boot a,b i"),
            (r#"{"action":"acquire","nodes":"a"}"#, "node acquire a"),
            (r#"{"action":"lease","nodes":"a"}"#, "node lease a"),
            (r#"{"action":"beat","hold":"h"}"#, "heartbeat of a lease"),
            (r#"{"action":"end-hold","hold":"h"}"#, "end of a lease"),
            (r#"{"action":"release","nodes":"a"}"#, "node release a"),
            (r#"{"action":"reboot","nodes":"a"}"#, "node reboot a"),
            (r#"{"action":"wait","nodes":"a"}"#, "node wait a"),
            (r#"{"action":"blink","node":"a","seconds":1}"#, "node blink a"),
            (r#"{"action":"save","node":"a","image":"i"}"#, "node save a i"),
            (r#"{"action":"link","nodes":"a","network":"n","changes":[]}"#, "node link a n"),
            (r#"{"action":"config","nodes":"a"}"#, "node config a"),
        ] {
            assert_eq!(of::<NodeAction>(json), words);
        }
        for (json, words) in [
            (r#"{"action":"rename","name":"a","new_name":"b"}"#, "device rename a b"),
            (r#"{"action":"forget","name":"a"}"#, "device forget a"),
            (r#"{"action":"restore","name":"a"}"#, "device restore a"),
            (r#"{"action":"config","devices":"a"}"#, "device config a"),
        ] {
            assert_eq!(of::<DeviceAction>(json), words);
        }
        for (json, words) in [
            (r#"{"action":"remove","name":"a"}"#, "image remove a"),
            (r#"{"action":"rename","name":"a","new_name":"b"}"#, "image rename a b"),
            (r#"{"action":"duplicate","name":"a","new_name":"b"}"#, "image duplicate a b"),
            (
                r#"{"action":"clone","link":"hub:a/b","name":"c","credentials":{"username":"u","password":"p"}}"#,
                "image clone hub:a/b c",
            ),
            (r#"{"action":"rollback","name":"a"}"#, "image rollback a"),
            (r#"{"action":"prune"}"#, "image prune"),
            (r#"{"action":"squash","name":"a"}"#, "image squash a"),
            (r#"{"action":"fix-owner","user":"u"}"#, "advanced fix-image-owner u"),
            (r#"{"action":"search","keyword":"k"}"#, "image search k"),
            (r#"{"action":"publish","name":"a","registry":"r"}"#, "image publish a r"),
            (
                r#"{"action":"registry-login","registry":"r","credentials":{"username":"u","password":"p"}}"#,
                "registry login r",
            ),
            (r#"{"action":"update-hub-meta"}"#, "advanced update-hub-meta"),
            (r#"{"action":"update-default-images"}"#, "advanced update-default-images"),
        ] {
            assert_eq!(of::<ImageAction>(json), words);
        }
        for (json, words) in [
            (r#"{"action":"save","session":"s","name":"n"}"#, "image shell: save n"),
            (r#"{"action":"discard","session":"s"}"#, "image shell: discard"),
            (r#"{"action":"discard-image","image":"i"}"#, "image shell --discard i"),
        ] {
            assert_eq!(of::<SessionAction>(json), words);
        }
        for (json, words) in [
            (r#"{"action":"add-checkpoint","name":"c"}"#, "log add-checkpoint c"),
            (r#"{"action":"remove-checkpoint","name":"c"}"#, "log remove-checkpoint c"),
        ] {
            assert_eq!(of::<LogAction>(json), words);
        }
        let mac = "02:00:00:00:00:01".parse().unwrap();
        let commit = AdminAction::DhcpCommit {
            vendor_class: String::new(),
            user_class: String::new(),
            ip: [10, 0, 0, 1].into(),
            mac,
            host_name: "pc".into(),
            force_name: false,
        };
        assert_eq!(commit.words(), "registration of pc");
        let import = AdminAction::ImportDefaultImage { name: "n".into(), dir: "/d".into() };
        assert_eq!(
            (import.words().as_str(), AdminAction::Down.words().as_str()),
            ("import of the default image n", "walt-server down")
        );
    }

    #[test]
    fn terminals_and_transfers_in_words() {
        let build: OpenImageBuild = serde_json::from_str(r#"{"image":"i","dockerfile_size":1}"#).unwrap();
        assert_eq!(build.words(), "image build i");
        let run = r#"{"nodes":"a,b","command":"secret","tty":null}"#;
        assert_eq!(of::<OpenNodeRun>(run), "node run a,b");
        let path = crate::transfer::Path(b"/p".to_vec());
        let node = "a".to_owned();
        let image = "i".to_owned();
        let source = crate::transfer::Source { kind: crate::transfer::SourceKind::File, name: path.clone() };
        for (what, words) in [
            (
                What::ToImage { image: image.clone(), path: path.clone(), source: source.clone() },
                "image cp: to i",
            ),
            (What::FromImage { image, path: path.clone() }, "image cp: from i"),
            (What::ToNode { node: node.clone(), path: path.clone(), source }, "node cp: to a"),
            (What::FromNode { node: node.clone(), path: path.clone() }, "node cp: from a"),
            (What::NodeToImage { node, path }, "node cp: to the image of a"),
        ] {
            assert_eq!(what.words(), words);
        }
    }

    #[test]
    fn long_sets_are_cut() {
        let words = |length: usize| NodeAction::Release { nodes: "é".repeat(length) }.words();
        let whole = words(WORDS_MAX - "node release ".len());
        assert!(whole.chars().count() == WORDS_MAX && whole.ends_with('é'));
        let cut = words(WORDS_MAX);
        assert!(cut.chars().count() == WORDS_MAX && cut.ends_with("é…"));
    }
}
