# What programs do with files, each answer of the kernel checked: crash.pl fsx|names|append|view DIRECTORY
# They go on until /run/crash/stop exists; then `ok` and a number are printed, or what was wrong before.
use strict;
use warnings;
use Digest::MD5;
use Fcntl;
use IO::Handle;
use Errno qw(EEXIST ENOENT);

my ($work, $dir) = @ARGV;
my $rounds = 0;

sub wrong { print "FAIL $work, round $rounds: @_\n"; exit 1 }
sub going { $rounds++; return !-e '/run/crash/stop' }

# Random writes, truncations and syncs of one file, which is compared with what it should hold.
sub fsx {
    my $size_max = 400_000;
    my $noise = join '', map { pack 'N', int rand 2**32 } 1 .. 25_000;
    my ($name, $held) = ("$dir/fsx", '');
    my $file;
    my $reopen = sub {
        if ($file) { close $file or wrong "close: $!" }
        sysopen $file, $name, O_RDWR | O_CREAT or wrong "open: $!";
    };
    $reopen->();
    while (going()) {
        my $what = int rand 20;
        if ($what < 9) {
            my ($at, $length) = (int rand $size_max - 60_000, 1 + int rand 60_000);
            my $data = substr $noise, int rand length($noise) - $length, $length;
            sysseek $file, $at, 0 or wrong "seek: $!";
            my $done = syswrite $file, $data;
            defined $done && $done == $length or wrong "write of $length: $!";
            $held .= "\0" x ($at - length $held) if $at > length $held;
            substr $held, $at, $length, $data;
        } elsif ($what < 11) {
            my $length = int rand $size_max;
            truncate $file, $length or wrong "truncate: $!";
            $held = $length <= length $held ? substr $held, 0, $length : $held . "\0" x ($length - length $held);
        } elsif ($what < 13) {
            $file->sync or wrong "fsync: $!";
        } elsif ($what < 14) {
            $reopen->();
        } elsif ($what < 15) {
            my $other = $name eq "$dir/fsx" ? "$dir/fsx-moved" : "$dir/fsx";
            rename $name, $other or wrong "rename: $!";
            $name = $other;
        } else {
            my ($from, $direct) = $file;
            if ($what == 15) { # past what the client has in memory
                sysopen $direct, $name, O_RDONLY | O_DIRECT or wrong "open: $!";
                $from = $direct;
            }
            sysseek $from, 0, 0 or wrong "seek: $!";
            my ($read, $done) = '';
            do {
                defined($done = sysread $from, $read, 1 << 20, length $read) or wrong "read: $!";
            } while $done;
            length $read == length $held or wrong 'has ' . length($read) . ' bytes and not ' . length $held;
            if ($read ne $held) {
                my $at = 0;
                $at++ while substr($read, $at, 1) eq substr $held, $at, 1;
                wrong "differs at byte $at";
            }
        }
    }
}

sub make {
    my ($name, $text) = @_;
    sysopen my $file, $name, O_WRONLY | O_CREAT | O_EXCL or wrong "create $name: $!";
    defined syswrite $file, $text or wrong "write $name: $!";
    close $file or wrong "close $name: $!";
}

sub holds {
    my ($name, $text) = @_;
    open my $file, '<', $name or wrong "open $name: $!";
    my $read = <$file>;
    defined $read && $read eq $text or wrong "$name holds something else";
    close $file;
}

sub left {
    my ($d) = @_;
    opendir my $list, $d or wrong "opendir: $!";
    my @left = grep { !/^\.\.?$/ } readdir $list;
    closedir $list;
    return @left;
}

# Names that come and go; each must be there, or not, as it was left.
sub names {
    while (going()) {
        my $d = "$dir/names-$rounds";
        mkdir $d or wrong "mkdir: $!";
        make("$d/a", "a$rounds");
        mkdir $d and wrong 'mkdir of what exists';
        $! == EEXIST or wrong "mkdir of what exists: $!";
        link "$d/a", "$d/b" or wrong "link: $!";
        rename "$d/b", "$d/c" or wrong "rename: $!";
        -e "$d/b" and wrong 'the old name is still there';
        holds("$d/c", "a$rounds");
        make("$d/over", 'over');
        rename "$d/c", "$d/over" or wrong "rename over: $!"; # both are names of one file: nothing happens
        symlink "target$rounds", "$d/s" or wrong "symlink: $!";
        readlink "$d/s" eq "target$rounds" or wrong 'the link leads elsewhere';
        holds("$d/over", "a$rounds");
        (stat "$d/a")[3] == 2 or wrong 'number of links';
        open my $open, '<', "$d/over" or wrong "open: $!";
        unlink "$d/over" or wrong "unlink: $!";
        unlink "$d/a" or wrong "unlink of the last name: $!";
        my $read = <$open>;
        $read eq "a$rounds" or wrong 'a removed file that is open holds something else';
        close $open;
        unlink "$d/a" and wrong 'unlink of what is gone';
        $! == ENOENT or wrong "unlink of what is gone: $!";
        unlink "$d/s" or wrong "unlink of a link: $!";
        my @left = left($d);
        # The client removes a file that was unlinked while open after its close: asynchronously, so that it
        # may still be listed when this call had to be sent again.
        for (my $tries = 0; @left && !(grep { !/^\.nfs/ } @left) && $tries < 120; $tries++) {
            sleep 1;
            @left = left($d);
        }
        @left and wrong "left: @left";
        rmdir $d or wrong "rmdir: $!";
    }
}

# Files of the image, whose sums were taken where no server is between. Each is read from the server.
sub view {
    my ($sys_fadvise64, $dontneed) = (221, 4); # x86-64; posix_fadvise(2)
    my @list = map { sum_of($_) } lines('/root/sums');
    @list or wrong 'nothing to read';
    while (going()) {
        for (@list) {
            my ($sum, $name) = @$_;
            sysopen my $file, $name, O_RDONLY or wrong "open $name: $!";
            my $digest = Digest::MD5->new;
            my ($data, $done);
            while ($done = sysread $file, $data, 1 << 18) { $digest->add($data) }
            defined $done or wrong "read $name: $!";
            $digest->hexdigest eq $sum or wrong "$name has another sum";
            syscall($sys_fadvise64, fileno $file, 0, 0, $dontneed) == 0 or wrong "fadvise $name: $!";
        }
    }
}

# A line of md5sum(1): it begins with a backslash if the name has escapes, as names of systemd's units do.
sub sum_of {
    my ($escaped, $sum, $name) = $_[0] =~ /^(\\?)([0-9a-f]{32})  (.*)$/ or wrong "no line of md5sum: $_[0]";
    $name =~ s/\\(n|\\)/$1 eq 'n' ? "\n" : '\\'/ge if $escaped;
    return [$sum, $name];
}

sub lines {
    my ($name) = @_;
    open my $file, '<', $name or wrong "open $name: $!";
    chomp(my @lines = <$file>);
    return @lines;
}

# Lines, each on the server's disk before the next.
sub append {
    sysopen my $file, "$dir/append", O_WRONLY | O_CREAT | O_APPEND or wrong "open: $!";
    while (going()) {
        my $line = sprintf "line %08d\n", $rounds;
        my $done = syswrite $file, $line;
        defined $done && $done == length $line or wrong "write: $!";
        $file->sync or wrong "fsync: $!";
    }
    close $file or wrong "close: $!";
}

{ fsx => \&fsx, names => \&names, append => \&append, view => \&view }->{$work}->();
$rounds--;
print "ok $rounds\n";
