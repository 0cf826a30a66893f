//! `walt node cp`

use crate::commands::cp::{self, Operand};
use crate::commands::{Confirmed, Context};
use crate::error::Failure;
use crate::help;
use clap::Args;
use std::ffi::OsString;
use walt_api::transfer::What;

/// The destination that is the image of the node.
const BOOTED_IMAGE: &str = "booted-image";

/// `walt node cp`
#[derive(Debug, Args)]
pub struct Cp {
    src: OsString,
    dst: OsString,
    #[command(flatten)]
    confirmed: Confirmed,
}

impl Cp {
    /// Runs it.
    pub async fn run(self, context: &mut Context) -> Result<(), Failure> {
        let yes = self.confirmed.yes;
        let source = Operand::parse(&self.src);
        if let (Operand::Remote { entity, path }, true) = (source, self.dst == BOOTED_IMAGE) {
            return cp::remote(context, What::NodeToImage { node: entity, path }, yes).await;
        }
        match cp::direction(&self.src, &self.dst, &help::of(&["node", "cp"]))? {
            (Operand::Local(local), Operand::Remote { entity, path }) => {
                let what = |source| What::ToNode { node: entity.clone(), path: path.clone(), source };
                cp::upload(context, &local, what, yes).await
            }
            (Operand::Remote { entity, path }, Operand::Local(local)) => {
                cp::download(context, What::FromNode { node: entity, path }, &local, yes).await
            }
            // Both local or both remote were refused.
            _ => Err(Failure::said()),
        }
    }
}
