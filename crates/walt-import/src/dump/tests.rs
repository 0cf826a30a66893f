use super::*;

/// All rows as text, one line each.
fn rows(dump: &str) -> Result<(Vec<String>, End), DumpError> {
    let mut all = Vec::new();
    let end = read(
        dump.as_bytes(),
        |table| table != "logs",
        |row| {
            let text = |value: &Value| {
                value
                    .as_ref()
                    .map_or("NULL".to_owned(), |v| String::from_utf8_lossy(v).escape_debug().to_string())
            };
            let values = match &row.values {
                Ok(values) => values.iter().map(text).collect::<Vec<_>>().join("|"),
                Err(why) => format!("!{why}"),
            };
            let columns = row.columns.map_or("?".to_owned(), |c| c.join(","));
            all.push(format!("{} {} ({columns}) {values}", row.line, row.table));
        },
    )?;
    Ok((all, end))
}

fn only(dump: &str) -> Vec<String> {
    rows(dump).unwrap().0
}

#[test]
fn copy_blocks() {
    let dump = "--\n-- PostgreSQL database dump\n--\n\\restrict x\nSET client_encoding = 'UTF8';\n\
        COPY public.devices (mac, ip, \"timestamp\", \"od\"\"d\") FROM stdin;\n\
        a\t\\N\t\\\\N\t\n\
        \\b\\f\\n\\r\\t\\v\\\\\t\\101\\x41\\0101\\q\t\\.x\té\n\
        \\.\n\
        COPY \"odd schema\".t (a) FROM stdin;\n\\.\nCOPY logs (stream_id) FROM stdin;\n1\tx\n2\ty\n\\.\n\
        -- PostgreSQL database dump complete\n";
    let (found, end) = rows(dump).unwrap();
    assert_eq!(
        found,
        [
            "7 devices (mac,ip,timestamp,od\"d) a|NULL|\\\\N|",
            "8 devices (mac,ip,timestamp,od\"d) \\u{8}\\u{c}\\n\\r\\t\\u{b}\\\\|AA\\u{8}1q|.x|é",
            "13 logs (stream_id) ",
            "14 logs (stream_id) ",
        ]
    );
    assert!(end.has_trailer);
    // Windows ends of lines, as an editor may leave them.
    assert_eq!(only("COPY t (a) FROM stdin;\r\nx\r\n\\.\r\n"), ["2 t (a) x"]);
}

#[test]
fn inserts() {
    let dump = "INSERT INTO public.devices VALUES ('a', NULL, true, -5, 'it''s', E'a\\\\b\\'c\\n');\n\
        INSERT INTO devices (mac, \"timestamp\") VALUES\n\t('two\nlines; still', NULL),\n\t('x', '');\n\
        INSERT INTO logs VALUES (1, 'x');\n\
        INSERT INTO t VALUES ('a' 'b');\n\
        INSERT INTO t VALUES ('''');\n";
    assert_eq!(
        only(dump),
        [
            "1 devices (?) a|NULL|true|-5|it\\'s|a\\\\b\\'c\\n",
            "2 devices (mac,timestamp) two\\nlines; still|NULL",
            "2 devices (mac,timestamp) x|",
            "6 logs (?) ",
            "7 t (?) !its values cannot be understood",
            "8 t (?) \\'",
        ]
    );
}

#[test]
fn what_is_no_dump() {
    let of = |text: &str| rows(text).unwrap_err().to_string();
    assert!(of("PGDMP\u{1}\u{e}").contains("pg_restore --data-only"));
    assert!(of("").contains("it has no rows of tables"));
    assert!(of("hello\nworld\n").contains("it has no rows of tables"));
    assert!(
        of("COPY public.devices (mac) FROM stdin;\na\n").contains("ends within the table devices (line 2)")
    );
    assert!(of("INSERT INTO devices VALUES ('a;\n").contains("ends within the table devices"));
    for bad in [
        "COPY t FROM stdin;\n",
        "COPY t (a) TO stdout;\n",
        "COPY t (a,) FROM stdin;\n",
        "COPY \"t (a) FROM stdin;\n",
    ] {
        assert!(of(bad).contains("line 1 cannot be understood"), "{bad}");
    }
    // An empty database is a dump.
    assert_eq!(only("-- PostgreSQL database dump complete\n"), [""; 0]);
}

#[test]
fn long_rows_are_told_and_not_kept() {
    let long = "x".repeat(ROW_MAX + 10);
    let found =
        only(&format!("COPY t (a) FROM stdin;\n{long}\ny\n\\.\nCOPY logs (a) FROM stdin;\n{long}\n\\.\n"));
    assert_eq!(found, ["2 t (a) !it is longer than 4 MiB", "3 t (a) y", "6 logs (a) "]);
    let found = only(&format!("INSERT INTO t VALUES ('{long}\n;{long}');\nINSERT INTO t VALUES (1);\n"));
    assert_eq!(found, ["1 t (?) !it is longer than 4 MiB", "3 t (?) 1"]);
    let many = ["1"; VALUES_MAX + 1].join("\t");
    assert_eq!(
        only(&format!("COPY t (a) FROM stdin;\n{many}\n\\.\n")),
        ["2 t (a) !it has more than 64 values"]
    );
}
