//! The operations of both doors.

use super::{Document, Errors, JSON, NDJSON};
use crate::{
    AdminAction, DeviceAction, DeviceList, Image, ImageAction, ImageList, Info, LinkState, Node, NodeAction,
    NodeList, RegistryList, RegistryToken, SessionAction, Status, StoreLook,
    boots::BootList,
    build::OpenImageBuild,
    live::Live,
    logs::{Checkpoint, LogAction, LogCount, LogLine, LogQuery},
    resource::{
        AcquireNode, BootNode, CloneImage, CreateNode, NewName, NodeConfig, Nothing, PublishImage,
        RebootNode, RollBackImage, WaitNode,
    },
    route,
    term::{ClientMessage, OpenImageShell, OpenNodeRun, OpenNodeTerminal, ServerMessage},
    transfer,
    versions::{ImageDiff, ImageHistory},
    web::{WebImageList, WebLog, WebLogList, WebNodeList},
};
use serde_json::{Value, json};

/// The API of the socket, which knows its callers.
pub fn socket() -> Value {
    let mut document = Document::new(
        "WalT",
        "HTTP/1.1 over the server's socket `/run/walt/walt.sock`; the caller is the account at its other end. \
         Additions only: `features` of `/api/v1/info` says what a server can do. Requests with fields that the server \
         does not know are refused; clients ignore fields that they do not know.",
    );
    questions(&mut document);
    actions(&mut document);
    sockets(&mut document);
    document.errors = Errors::Problem;
    nodes(&mut document);
    images(&mut document);
    document.finish()
}

/// The API of port 80, for everybody.
pub fn read_only() -> Value {
    let mut document = Document::new(
        "WalT, read-only",
        "HTTP/1.1 on port 80 of walt-net and at `web: {listen: …}`: what everybody may read. `GET` and `HEAD` only. \
         Additions only.",
    );
    document.errors = Errors::Web;
    let d = &mut document;
    d.operation("get", "/doc/{page}", "helpPage", "A help page.").gives_schema(
        200,
        "text/html",
        "The page.",
        json!({"type": "string"}),
    );
    d.operation("get", route::OPENAPI, "openapi", "This document.").gives_schema(
        200,
        JSON,
        "An OpenAPI document.",
        json!({"type": "object"}),
    );
    let filter = "Only items that have this value; an empty value counts as absent.";
    let nodes = d.operation("get", route::NODES, "nodes", "The nodes.").answers::<WebNodeList>("The nodes.");
    ["name", "model", "image", "ip", "mac"]
        .iter()
        .fold(nodes, |nodes, field| nodes.query(field, false, "string", filter))
        .query("virtual", false, "boolean", filter)
        .query("booted", false, "boolean", filter);
    let images =
        d.operation("get", route::IMAGES, "images", "The images.").answers::<WebImageList>("The images.");
    ["fullname", "user", "id"]
        .iter()
        .fold(images, |images, field| images.query(field, false, "string", filter))
        .query("in_use", false, "boolean", filter)
        .query("refresh", false, "boolean", "For clients of the existing system; without effect.");
    logs(d);
    metrics(d);
    document.finish()
}

fn logs(d: &mut Document) {
    d.operation("get", route::LOGS, "logs", "Lines of logs.")
        .query("from", true, "number", "Only lines after this moment, since 1970.")
        .query("to", true, "number", "Only lines before this moment.")
        .query(
            "ts_unit",
            false,
            "string",
            "`s` (default) or `ms`: the unit of `from`, `to` and all timestamps.",
        )
        .query("issuer", false, "string", "Only lines of this device.")
        .query("stream", false, "string", "Only streams whose whole name matches this regular expression.")
        .query("limit", false, "integer", "Most lines of the answer.")
        .query("page", false, "string", "`next_page` of the answer before.")
        .answers::<WebLogList>("The lines, by time.")
        .gives::<WebLog>(200, NDJSON, "With `Accept: application/x-ndjson`: all lines, without pages.");
}

fn metrics(d: &mut Document) {
    d.operation("get", route::METRICS, "metrics", "Figures for Prometheus.").gives_schema(
        200,
        "text/plain",
        "Prometheus' text format.",
        json!({"type": "string"}),
    );
}

fn questions(d: &mut Document) {
    d.operation("get", route::INFO, "info", "The server, and who the caller is there.")
        .answers::<Info>("The server.");
    d.operation("get", route::OPENAPI, "openapi", "This document.").gives_schema(
        200,
        JSON,
        "An OpenAPI document.",
        json!({"type": "object"}),
    );
    d.operation("get", route::NODES, "nodes", "The nodes.").answers::<NodeList>("The nodes.");
    d.operation("get", route::NODE_BOOTS, "nodeBoots", "The last boots of a node.")
        .query("node", true, "string", "The node.")
        .answers::<BootList>("Its boots.");
    d.operation("get", route::LINKS, "links", "Links of nodes to networks.")
        .query("nodes", false, "string", "A set of nodes; all by default.")
        .gives_schema(
            200,
            JSON,
            "The links.",
            json!({"type": "array", "items": {"$ref": "#/components/schemas/LinkState"}}),
        );
    d.schema::<LinkState>();
    d.operation("get", route::EVENTS, "events", "The state, and its changes as they happen.")
        .query("kinds", false, "string", "Only these kinds, with commas between them.")
        .query("nodes", false, "string", "Only these nodes.")
        .gives::<Live>(200, NDJSON, "Messages, one per line, without an end.")
        .gives_schema(
            101,
            "application/json",
            "With an upgrade: the same messages by WebSocket.",
            json!({"type": "object"}),
        );
    metrics(d);
    d.operation("get", route::DEVICES, "devices", "The devices.").answers::<DeviceList>("The devices.");
    d.operation("get", route::IMAGES, "images", "The images.")
        .query("mine", false, "integer", "1 makes the first images of a new user.")
        .answers::<ImageList>("The images.");
    d.operation("get", route::IMAGE_HISTORY, "historyOf", "What a name pointed to.")
        .query("image", true, "string", "An image of the caller.")
        .answers::<ImageHistory>("Its versions.");
    d.operation("get", route::IMAGE_DIFF, "diff", "How two images differ.")
        .query("from", true, "string", "An image.")
        .query("to", true, "string", "An image.")
        .answers::<ImageDiff>("The differences.");
    d.operation("get", route::REGISTRIES, "registries", "The registries.")
        .answers::<RegistryList>("The registries.");
    d.operation(
        "post",
        route::REGISTRY_TOKEN,
        "registryToken",
        "Access to the server's own registry, below `/v2/`.",
    )
    .answers::<RegistryToken>("A token.");
    d.operation("post", route::LOG_LINES, "logLines", "Lines of logs.")
        .takes::<LogQuery>(true)
        .gives::<LogLine>(200, NDJSON, "The lines, as objects.")
        .gives_schema(200, "text/plain", "The lines, if the query has a format.", json!({"type": "string"}));
    d.operation("post", route::LOG_COUNT, "logCount", "About how many past lines a query has.")
        .takes::<LogQuery>(true)
        .answers::<LogCount>("Their number.");
    d.operation("get", route::CHECKPOINTS, "checkpoints", "The caller's checkpoints.").gives_schema(
        200,
        JSON,
        "The checkpoints.",
        json!({"type": "array", "items": {"$ref": "#/components/schemas/Checkpoint"}}),
    );
    d.schema::<Checkpoint>();
    d.operation("get", route::STORE, "store", "The image store; for root.")
        .answers::<StoreLook>("What is in it.");
    d.operation("get", route::STATUS, "status", "The state of the server; for root.")
        .answers::<Status>("Its state.");
}

fn actions(d: &mut Document) {
    d.operation("post", route::NODE_ACTIONS, "nodeAction", "An action on nodes.")
        .takes::<NodeAction>(true)
        .streams();
    d.operation("post", route::DEVICE_ACTIONS, "deviceAction", "An action on devices.")
        .takes::<DeviceAction>(true)
        .streams();
    d.operation("post", route::IMAGE_ACTIONS, "imageAction", "An action on images.")
        .takes::<ImageAction>(true)
        .streams();
    d.operation("post", route::LOG_ACTIONS, "logAction", "An action on checkpoints.")
        .takes::<LogAction>(true)
        .streams();
    d.operation(
        "post",
        route::SESSION_ACTIONS,
        "sessionAction",
        "An action on the session of an image shell.",
    )
    .takes::<SessionAction>(true)
    .streams();
    d.operation("post", route::ADMIN_ACTIONS, "adminAction", "An action on the server; for root.")
        .takes::<AdminAction>(true)
        .streams();
}

fn sockets(d: &mut Document) {
    d.operation("get", route::IMAGE_SHELL, "imageShell", "`walt image shell`.")
        .socket::<OpenImageShell, ClientMessage, ServerMessage>();
    d.operation("get", route::NODE_TERMINAL, "nodeTerminal", "A program on or about a node.")
        .socket::<OpenNodeTerminal, ClientMessage, ServerMessage>();
    d.operation("get", route::NODE_RUN, "nodeRun", "A command on a set of nodes.")
        .socket::<OpenNodeRun, ClientMessage, ServerMessage>();
    d.operation("get", route::IMAGE_BUILD, "imageBuild", "`walt image build`.")
        .socket::<OpenImageBuild, ClientMessage, ServerMessage>();
    d.operation("get", route::TRANSFER, "transfer", "Files to or from the server.")
        .socket::<transfer::Open, transfer::ClientMessage, transfer::ServerMessage>();
}

fn nodes(d: &mut Document) {
    d.operation("post", route::NODES, "createNode", "Creates a virtual node and starts it.")
        .takes::<CreateNode>(true)
        .performs(true);
    d.operation("get", route::NODE, "node", "A node.").answers::<Node>("The node.");
    d.operation("delete", route::NODE, "removeNode", "Stops and removes a virtual node.").performs(false);
    d.operation("get", route::BOOTS_OF_NODE, "bootsOfNode", "Its last boots.")
        .answers::<BootList>("Its boots.");
    d.operation("get", route::NODE_CONFIG, "nodeConfig", "Its settings.")
        .answers::<NodeConfig>("Its settings.");
    d.operation("patch", route::NODE_CONFIG, "changeNodeConfig", "Changes settings.")
        .takes_schema(
            true,
            json!({"type": "object", "description": "Settings by key: null is `none`, an empty string the default.",
                "additionalProperties": {"type": ["string", "integer", "boolean", "null"]}}),
        )
        .performs(false);
    d.operation("post", route::NODE_BOOT, "bootNode", "Associates it with an image and reboots it.")
        .takes::<BootNode>(true)
        .performs(false);
    d.operation("post", route::NODE_REBOOT, "rebootNode", "Reboots it.")
        .takes::<RebootNode>(false)
        .performs(false);
    d.operation("post", route::NODE_WAIT, "waitForNode", "Waits until it has booted.")
        .takes::<WaitNode>(false)
        .performs(false);
    d.operation("post", route::NODE_ACQUIRE, "acquireNode", "Takes ownership.")
        .takes::<AcquireNode>(false)
        .performs(false);
    d.operation("post", route::NODE_RELEASE, "releaseNode", "Gives ownership back.")
        .takes::<Nothing>(false)
        .performs(false);
    d.operation("post", route::NODE_RENAME, "renameNode", "Gives it another name.")
        .takes::<NewName>(true)
        .performs(false);
}

fn images(d: &mut Document) {
    d.operation("post", route::IMAGES, "cloneImage", "Copies an image to the caller's images.")
        .takes::<CloneImage>(true)
        .performs(true);
    d.operation("get", route::IMAGE, "image", "An image.").answers::<Image>("The image.");
    d.operation("delete", route::IMAGE, "removeImage", "Removes a name.").performs(false);
    d.operation("get", route::HISTORY_OF_IMAGE, "historyOfImage", "What the name pointed to.")
        .answers::<ImageHistory>("Its versions.");
    d.operation("post", route::IMAGE_RENAME, "renameImage", "Renames it.")
        .takes::<NewName>(true)
        .performs(false);
    d.operation("post", route::IMAGE_DUPLICATE, "duplicateImage", "Makes a second name of it.")
        .takes::<NewName>(true)
        .performs(true);
    d.operation("post", route::IMAGE_ROLLBACK, "rollBackImage", "Points the name to an earlier version.")
        .takes::<RollBackImage>(false)
        .performs(false);
    d.operation("post", route::IMAGE_PRUNE, "pruneImage", "Deletes all versions but the current one.")
        .takes::<Nothing>(false)
        .performs(false);
    d.operation("post", route::IMAGE_SQUASH, "squashImage", "Squashes its layers into one.")
        .takes::<Nothing>(false)
        .performs(false);
    d.operation("post", route::IMAGE_PUBLISH, "publishImage", "Publishes it to a registry.")
        .takes::<PublishImage>(false)
        .performs(false);
}
