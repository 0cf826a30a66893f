//! `walt-test-image NAME`: builds a default image into the cache of the tests, if it is not there.

fn main() {
    for name in std::env::args().skip(1) {
        println!("{}", walt_testkit::images::built(&name).display());
    }
}
