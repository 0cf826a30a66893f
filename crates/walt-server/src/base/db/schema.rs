//! The tables, as numbered steps on `PRAGMA user_version`. A step that has shipped is never changed.

use anyhow::{Context, Result, bail};
use rusqlite::Connection;

/// Step n brings a database of version n to version n + 1.
const STEPS: &[&str] = &[
    "
    -- Small values of the server itself, such as the key of confirmation tokens.
    CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT;
    -- References to images; an image itself is its configuration in the store.
    CREATE TABLE refs (
        fullname TEXT PRIMARY KEY,          -- <user>/<name>:<tag>
        image_id TEXT NOT NULL,
        created INTEGER NOT NULL            -- seconds since the epoch
    ) STRICT;
    CREATE TABLE nodes (
        mac TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        ip TEXT NOT NULL UNIQUE,
        model TEXT NOT NULL,
        image TEXT NOT NULL,                -- a full reference
        virtual INTEGER NOT NULL,
        uuid TEXT NOT NULL,
        -- The life of the node, see walt-core::life.
        started REAL, old_boot_id TEXT, boot_id TEXT, booted REAL, link_lost REAL
    ) STRICT;
    CREATE TABLE settings (
        mac TEXT NOT NULL REFERENCES nodes (mac) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (mac, key)
    ) STRICT;
    -- Which views a node may read: recorded before a mount is answered.
    CREATE TABLE grants (
        mac TEXT NOT NULL REFERENCES nodes (mac) ON DELETE CASCADE,
        view TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (mac, view)
    ) STRICT;
    -- Directories of /persist: per node and owner. A number is never used again for another directory.
    CREATE TABLE persists (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        mac TEXT NOT NULL REFERENCES nodes (mac) ON DELETE CASCADE,
        owner TEXT NOT NULL,
        UNIQUE (mac, owner)
    ) STRICT;
    -- Platform layers already made: a function of the image and of what the server puts in.
    CREATE TABLE platforms (
        image_id TEXT NOT NULL,
        inputs TEXT NOT NULL,
        diff_id TEXT NOT NULL,
        view TEXT NOT NULL,
        PRIMARY KEY (image_id, inputs)
    ) STRICT;
    CREATE TABLE sessions (
        id TEXT PRIMARY KEY,
        user TEXT NOT NULL,
        image TEXT NOT NULL,                -- the full reference it was opened on
        image_id TEXT NOT NULL,             -- what that meant at the time
        platform TEXT NOT NULL,             -- diff-id of the platform layer
        slot INTEGER NOT NULL UNIQUE,       -- picks its address and interface
        opened INTEGER NOT NULL,
        used INTEGER NOT NULL,              -- when somebody was last attached
        committing TEXT                     -- the commit under way as JSON
    ) STRICT;
    CREATE UNIQUE INDEX one_session_per_image ON sessions (image);
",
    "
    -- Addresses of stations that are not nodes, by DHCP.
    CREATE TABLE leases (
        mac TEXT PRIMARY KEY,
        ip TEXT NOT NULL UNIQUE,
        ends INTEGER NOT NULL               -- seconds since the epoch
    ) STRICT;
",
    "
    -- What references have meant: one row each time one began to mean an image. The highest version is now.
    CREATE TABLE history (
        fullname TEXT NOT NULL,
        version INTEGER NOT NULL,           -- 1, 2, … of this reference; never used again
        image_id TEXT NOT NULL,
        since INTEGER NOT NULL,             -- seconds since the epoch
        user TEXT NOT NULL,
        command TEXT NOT NULL,
        PRIMARY KEY (fullname, version)
    ) STRICT;
    INSERT INTO history SELECT fullname, 1, image_id, created, substr(fullname, 1, instr(fullname, '/') - 1), ''
        FROM refs;
",
    "
    -- Layers as blobs that registries have: these are not sent again.
    CREATE TABLE layer_blobs (
        diff_id TEXT NOT NULL,
        digest TEXT NOT NULL,
        size INTEGER NOT NULL,
        media_type TEXT NOT NULL,
        registry TEXT NOT NULL,             -- its label
        repository TEXT NOT NULL,
        seen INTEGER NOT NULL,              -- seconds since the epoch
        PRIMARY KEY (diff_id, registry, repository)
    ) STRICT;
",
    "
    -- Manifests of images that were pushed to us, byte for byte, and the blobs that are kept for them.
    CREATE TABLE manifests (
        digest TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        bytes BLOB NOT NULL,
        image_id TEXT NOT NULL,
        pushed INTEGER NOT NULL             -- seconds since the epoch
    ) STRICT;
    CREATE INDEX manifests_of_image ON manifests (image_id);
    CREATE TABLE manifest_blobs (
        manifest TEXT NOT NULL REFERENCES manifests (digest) ON DELETE CASCADE,
        blob TEXT NOT NULL,
        PRIMARY KEY (manifest, blob)
    ) STRICT;
",
    "
    -- Results of steps of image builds: per user, by a digest of what the step depends on.
    CREATE TABLE build_cache (
        key TEXT PRIMARY KEY,
        layer TEXT,                         -- diff-id; null: the step changed nothing
        size INTEGER NOT NULL,              -- bytes of the layer's tar
        used INTEGER NOT NULL               -- when a build last used it
    ) STRICT;
    CREATE INDEX build_cache_used ON build_cache (used);
",
    "
    -- What names were pushed as: the manifest or index that a tag gives while its name means the image. The one
    -- pushed last has the highest id.
    CREATE TABLE pushes (
        id INTEGER PRIMARY KEY,
        fullname TEXT NOT NULL,
        image_id TEXT NOT NULL,
        document TEXT NOT NULL,             -- digest: in manifests or in indexes
        UNIQUE (fullname, image_id, document)
    ) STRICT;
    -- Indexes that were pushed to us, byte for byte; the images in them; what else is in them, and its blobs.
    CREATE TABLE indexes (
        digest TEXT PRIMARY KEY,
        media_type TEXT NOT NULL,
        bytes BLOB NOT NULL
    ) STRICT;
    CREATE TABLE index_images (
        of_index TEXT NOT NULL REFERENCES indexes (digest) ON DELETE CASCADE,
        image_id TEXT NOT NULL,
        PRIMARY KEY (of_index, image_id)
    ) STRICT;
    CREATE TABLE index_others (
        of_index TEXT NOT NULL REFERENCES indexes (digest) ON DELETE CASCADE,
        digest TEXT NOT NULL,
        media_type TEXT NOT NULL,
        bytes BLOB NOT NULL,
        PRIMARY KEY (of_index, digest)
    ) STRICT;
    CREATE TABLE index_blobs (
        of_index TEXT NOT NULL REFERENCES indexes (digest) ON DELETE CASCADE,
        blob TEXT NOT NULL,
        PRIMARY KEY (of_index, blob)
    ) STRICT;
",
    "
    -- Images that builds have got from registries, per user; nobody's until a name means them.
    CREATE TABLE build_bases (
        user TEXT NOT NULL,
        name TEXT NOT NULL,                 -- as after FROM
        platforms TEXT NOT NULL,            -- what it was wanted for, most wanted first
        image_id TEXT NOT NULL,
        place TEXT NOT NULL,                -- where it was found: label, repository, tag, digest
        size INTEGER NOT NULL,              -- bytes of its layers as tars
        used INTEGER NOT NULL,              -- when a build last used it
        PRIMARY KEY (user, name, platforms)
    ) STRICT;
    CREATE INDEX build_bases_used ON build_bases (used);
",
    "
    -- Stations that got an address by DHCP and are not nodes.
    CREATE TABLE devices (
        mac TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE COLLATE NOCASE,
        ip TEXT UNIQUE,                     -- its last one; null once another station has it
        type TEXT NOT NULL,                 -- unknown or switch
        named INTEGER NOT NULL,             -- whether a user gave it its name or its type
        vendor_class TEXT NOT NULL,         -- what it said by DHCP; empty if it said nothing
        user_class TEXT NOT NULL,
        host_name TEXT NOT NULL,
        model TEXT,                         -- of which it said it is a node
        first_seen INTEGER NOT NULL,        -- seconds since the epoch
        last_seen INTEGER NOT NULL
    ) STRICT;
    -- Nodes that say that they are of another model than they were when they were registered.
    CREATE TABLE model_claims (
        mac TEXT PRIMARY KEY REFERENCES nodes (mac) ON DELETE CASCADE,
        model TEXT NOT NULL,
        since INTEGER NOT NULL              -- seconds since the epoch
    ) STRICT;
    -- Physical nodes that were forgotten, and can be restored.
    CREATE TABLE trash (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        mac TEXT NOT NULL,
        name TEXT NOT NULL COLLATE NOCASE,
        ip TEXT NOT NULL,
        model TEXT NOT NULL,
        image TEXT NOT NULL,
        uuid TEXT NOT NULL,
        settings TEXT NOT NULL,             -- JSON: value by key
        persists TEXT NOT NULL,             -- JSON: owner by number
        forgotten INTEGER NOT NULL,         -- seconds since the epoch
        user TEXT NOT NULL,                 -- by whom
        moved INTEGER NOT NULL              -- whether its /persist is in trash/<id>, not in persist/<mac>
    ) STRICT;
",
    "
    -- The mode of a node's present boot, and how far the copy of its image to its disk is.
    ALTER TABLE nodes ADD COLUMN boot_mode TEXT;
    ALTER TABLE nodes ADD COLUMN copied_at REAL;
    ALTER TABLE nodes ADD COLUMN copied INTEGER;    -- percent
",
    "
    -- Leases of nodes: until when their owners want them. (The table leases has those of addresses.)
    CREATE TABLE node_leases (
        mac TEXT PRIMARY KEY REFERENCES nodes (mac) ON DELETE CASCADE,
        user TEXT NOT NULL,                 -- the owner; it counts while that user owns the node
        ends REAL,                          -- seconds since the epoch; null: never
        hold TEXT,                          -- name of the client that keeps it by heartbeat; null: none
        silence REAL,                       -- seconds that this client may be silent
        heard REAL                          -- when it was heard last
    ) STRICT;
    -- Who waits for nodes, in the order of id.
    CREATE TABLE node_waits (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        user TEXT NOT NULL,
        tag TEXT NOT NULL,                  -- the client's name for its place
        since INTEGER NOT NULL,             -- seconds since the epoch
        macs TEXT NOT NULL,                 -- JSON
        granted INTEGER,                    -- when it got the nodes
        UNIQUE (user, tag)
    ) STRICT;
    -- By whom nodes were last taken from their owners.
    CREATE TABLE node_takings (
        mac TEXT PRIMARY KEY REFERENCES nodes (mac) ON DELETE CASCADE,
        owner TEXT NOT NULL,                -- before
        user TEXT NOT NULL,
        at INTEGER NOT NULL                 -- seconds since the epoch
    ) STRICT;
",
    "
    -- Shapes that links of nodes have for a while, instead of the configured ones.
    CREATE TABLE passing_shapes (
        mac TEXT NOT NULL REFERENCES nodes (mac) ON DELETE CASCADE,
        network TEXT NOT NULL,
        shape TEXT NOT NULL,
        until REAL NOT NULL,                -- seconds since the epoch
        PRIMARY KEY (mac, network)
    ) STRICT;
",
    "
    -- Settings of devices that are not nodes.
    CREATE TABLE device_settings (
        mac TEXT NOT NULL REFERENCES devices (mac) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (mac, key)
    ) STRICT;
    -- What running nodes have booted with, of the settings that were changed since.
    CREATE TABLE booted_with (
        mac TEXT NOT NULL REFERENCES nodes (mac) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        PRIMARY KEY (mac, key)
    ) STRICT;
",
    "
    -- The last boots of each node, see walt-core::boots.
    CREATE TABLE boots (
        mac TEXT NOT NULL REFERENCES nodes (mac) ON DELETE CASCADE,
        number INTEGER NOT NULL,            -- 1, 2, … of this node
        record TEXT NOT NULL,               -- JSON
        PRIMARY KEY (mac, number)
    ) STRICT;
    -- Failed boots: from when the clock runs, how often was tried again, and why nothing more is tried.
    ALTER TABLE nodes ADD COLUMN clock_from REAL;
    ALTER TABLE nodes ADD COLUMN tries INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE nodes ADD COLUMN needs_look TEXT;
",
    "
    -- Moments to which users have given names, for ranges of log lines.
    CREATE TABLE checkpoints (
        user TEXT NOT NULL,
        name TEXT NOT NULL,
        at INTEGER NOT NULL,                -- microseconds since 1970
        PRIMARY KEY (user, name)
    ) STRICT;
",
];

/// Migrates a database to the current version.
///
/// # Errors
/// It was written by a newer server, or a step fails.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    let version = version(connection)?;
    if version > STEPS.len() {
        bail!(
            "the database has version {version}, but this server only supports {}: start the newer server",
            STEPS.len()
        );
    }
    for (number, step) in STEPS.iter().enumerate().skip(version) {
        let tx = connection.transaction()?;
        tx.execute_batch(step).with_context(|| format!("database step {number}"))?;
        tx.pragma_update(None, "user_version", number as u32 + 1)?;
        tx.commit()?;
    }
    Ok(())
}

fn version(connection: &Connection) -> Result<usize> {
    let version: u32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    Ok(version as usize)
}

/// Checks that a database has the current version, for read-only access.
///
/// # Errors
/// It has an older or newer version.
pub fn is_ours(connection: &Connection) -> Result<()> {
    let version = version(connection)?;
    if version != STEPS.len() {
        bail!(
            "the database has version {version}, but this program supports version {}: start 'walt-server run' of \
             this version, or use the program of the server that runs",
            STEPS.len()
        );
    }
    Ok(())
}
