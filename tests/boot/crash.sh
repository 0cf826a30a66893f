#!/bin/sh
# On the node of crash.rs: crash.sh prepare|work|check. Works in /persist/w; what is said lies in /run/crash.
set -eu
cd /
W=/persist/w
S=/run/crash
PG=/usr/lib/postgresql/15/bin
WORKERS="read view list fsx names append sqlite postgres"

say() { echo "$*"; exit 1; }
going() { n=$((n + 1)); [ ! -e $S/stop ]; }
pg() { $PG/psql -h /tmp -U postgres -qAtX -v ON_ERROR_STOP=1 -c "$1"; }

prepare() {
    mkdir -p $S
    chmod 1777 $S
    cp -a /var/lib/postgresql/made $W/pg
    # Each commit waits for the disk, and no page is left in memory for long.
    su postgres -c "$PG/pg_ctl -w -t 300 -D $W/pg -l $S/postgres.log -o \"-k /tmp -c listen_addresses= -c shared_buffers=1MB -c checkpoint_timeout=30s\" start" >$S/start
    pg 'create table t (n int primary key, text text); create table last (n int); insert into last values (0)'
    sqlite3 $W/sqlite 'create table t (n int primary key, text text)'
}

# Each prints `ok` and a number, or what was wrong.
read_worker() {
    while going; do
        [ "$(md5sum <$W/big)" = "$(cat $W/big.md5)" ] || say "FAIL $W/big has another sum, round $n"
        dd if=$W/big iflag=nocache count=0 2>/dev/null # the next round comes from the server
        sleep 1
    done
}
list_worker() {
    while going; do
        # shellcheck disable=SC2012 # names of our own
        [ "$(ls -U $W/many | LC_ALL=C sort | md5sum)" = "$(cat $W/many.md5)" ] || say "FAIL other names in $W/many, round $n"
        : >$W/many/new
        rm $W/many/new # what the client knows of the directory is out of date
        sleep 1
    done
}
file_worker() { perl $W/crash.pl "$1" $W; }
sqlite_worker() {
    while going; do
        sqlite3 -bail $W/sqlite "pragma synchronous=FULL; begin; insert into t values ($n, hex(randomblob(500))); delete from t where n = $n - 50; commit" >$S/sqlite.out 2>&1 ||
            say "FAIL sqlite, round $n: $(cat $S/sqlite.out)"
    done
}
postgres_worker() {
    while going; do
        pg "begin; insert into t values ($n, repeat(md5('$n'), 50)); update last set n = $n; commit" >$S/postgres.out 2>&1 ||
            say "FAIL PostgreSQL, round $n: $(cat $S/postgres.out)"
    done
}

work() {
    for worker in $WORKERS; do
        n=0
        (
            case $worker in
                fsx | names | append | view) file_worker "$worker" ;;
                *) "${worker}_worker" && echo "ok $((n - 1))" ;;
            esac
        ) >$S/"$worker".said 2>$S/"$worker".errors &
    done
    wait
    touch $S/ended
}

# Everything that was said to be done is there. Prints one line per worker.
check() {
    for worker in $WORKERS; do
        echo "$worker: $(cat $S/"$worker".said $S/"$worker".errors)"
    done
    count() { sed -n 's/^ok //p' $S/"$1".said; }
    n=$(count sqlite)
    [ "$(sqlite3 $W/sqlite 'pragma integrity_check')" = ok ] || say "FAIL sqlite finds damage"
    [ "$(sqlite3 $W/sqlite 'select max(n) from t')" = "$n" ] || say "FAIL sqlite has not $n transactions"
    n=$(count postgres)
    [ "$(pg 'select count(*), max(n), (select n from last) from t')" = "$n|$n|$n" ] || say "FAIL PostgreSQL has not $n transactions"
    [ -z "$(pg "select n from t where text <> repeat(md5(n::text), 50)")" ] || say "FAIL PostgreSQL has other rows"
    su postgres -c "$PG/pg_ctl -w -t 300 -D $W/pg stop" >/dev/null
    ! grep -E 'PANIC|FATAL|ERROR' $S/postgres.log || say "FAIL PostgreSQL's log"
    su postgres -c "$PG/pg_checksums -c -D $W/pg" >/dev/null || say "FAIL checksums of PostgreSQL"
    awk 'sprintf("line %08d", NR) != $0 { exit 1 }' $W/append || say "FAIL a line that was synced is lost"
    [ "$(wc -l <$W/append)" -eq "$(count append)" ] || say "FAIL lines that were synced are lost"
    [ -z "$(find $W -name '.nfs*')" ] || say "FAIL removed files are still there"
    ! dmesg | grep -iE 'nfs: .*(error|stale)|I/O error' || say "FAIL the kernel has complained"
    echo "all is there"
}

"$1"
