//! Layers: the tar format, the skeleton, unpacking, and writing a directory down as a layer.

pub(crate) mod attributes;
pub(crate) mod disk;
pub(crate) mod holes;
pub(crate) mod implied;
pub(crate) mod import;
pub(crate) mod prefetch;
pub(crate) mod scan;
pub(crate) mod skeleton;
pub(crate) mod write;
