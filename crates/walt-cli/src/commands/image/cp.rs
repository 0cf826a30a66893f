//! `walt image cp`

use crate::commands::cp::{self, Operand};
use crate::commands::{Confirmed, Context};
use crate::error::Failure;
use crate::help;
use clap::Args;
use std::ffi::OsString;
use walt_api::transfer::What;

/// `walt image cp`
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
        match cp::direction(&self.src, &self.dst, &help::of(&["image", "cp"]))? {
            (Operand::Local(local), Operand::Remote { entity, path }) => {
                let what = |source| What::ToImage { image: entity.clone(), path: path.clone(), source };
                cp::upload(context, &local, what, yes).await
            }
            (Operand::Remote { entity, path }, Operand::Local(local)) => {
                cp::download(context, What::FromImage { image: entity, path }, &local, yes).await
            }
            // Both local or both remote were refused.
            _ => Err(Failure::said()),
        }
    }
}
