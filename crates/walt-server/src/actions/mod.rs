//! What users ask for, one file each. Questions to users, decisions under the lock, the wording of results, and
//! reboots are here only.

pub mod admin;
pub mod app;
pub mod build;
pub mod check_store;
pub mod clone;
pub mod console;
pub mod housekeeping;
pub mod hub_meta;
pub mod image_actions;
pub mod image_change;
pub mod image_copy;
pub mod image_fix_owner;
pub mod image_list;
pub mod image_squash;
pub mod image_versions;
pub mod node_actions;
pub mod node_boot;
pub mod node_config;
pub mod node_copy;
pub mod node_create;
pub mod node_program;
pub mod node_save;
pub mod ownership;
pub mod ping;
pub mod publish;
pub mod publish_ref;
pub mod reboot;
pub mod register_node;
pub mod search;
pub mod session_save;
pub mod shell;
pub mod status;
pub mod update;
