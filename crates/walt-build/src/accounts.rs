//! Accounts of an image: resolves the names in `USER` and `--chown` to the numbers that files and processes have.

use std::io::Read;
use walt_images::View;

/// Largest `/etc/passwd` or `/etc/group` that is read, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// Who a command runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Account {
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The files of an image that name accounts; empty where it has none.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    passwd: String,
    group: String,
}

impl Accounts {
    /// Reads the account files of an image.
    pub fn of(view: &View) -> Self {
        Self { passwd: read(view, b"etc/passwd"), group: read(view, b"etc/group") }
    }

    /// Resolves `user`, `user:group`, names or numbers; empty is root.
    pub fn find(&self, text: &str) -> Result<Account, String> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group).filter(|g| !g.is_empty())),
            None => (text, None),
        };
        let mut account = Account::default();
        let user = if user.is_empty() { "0" } else { user };
        let line = fields(&self.passwd).find(|f| f.first() == Some(&user) || f.get(2) == Some(&user));
        match (line, user.parse::<u32>()) {
            (Some(found), _) => {
                let number = |at: usize| found.get(at).and_then(|n| n.parse().ok());
                account.uid =
                    number(2).ok_or_else(|| format!("/etc/passwd has no number for user {user}"))?;
                account.gid = number(3).unwrap_or_default();
                if group.is_none() {
                    let name = found[0];
                    let members = fields(&self.group)
                        .filter(|f| f.get(3).is_some_and(|list| list.split(',').any(|m| m == name)))
                        .filter_map(|f| f.get(2)?.parse().ok());
                    account.groups = members.collect();
                }
            }
            (None, Ok(uid)) => account.uid = uid,
            (None, Err(_)) => return Err(format!("the image has no user '{user}' in /etc/passwd")),
        }
        if let Some(group) = group {
            let line = fields(&self.group).find(|f| f.first() == Some(&group));
            account.gid = match (line.and_then(|f| f.get(2)?.parse().ok()), group.parse()) {
                (Some(gid), _) | (None, Ok(gid)) => gid,
                (None, Err(_)) => return Err(format!("the image has no group '{group}' in /etc/group")),
            };
        }
        Ok(account)
    }

    /// Owner and group for `--chown`: a lone number or name is the group as well.
    pub fn owner(&self, text: &str) -> Result<(u32, u32), String> {
        let account = self.find(text)?;
        let gid = match text.split_once(':') {
            Some(_) => account.gid,
            None => match text.parse::<u32>() {
                Ok(number) => number,
                Err(_) => account.gid,
            },
        };
        Ok((account.uid, gid))
    }
}

fn read(view: &View, path: &[u8]) -> String {
    let mut text = Vec::new();
    if let Some(number) = view.resolve(path)
        && let Ok(file) = view.open(number)
    {
        // An unreadable file has no accounts.
        let _ = file.take(MAX_FILE).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

fn fields(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().filter(|l| !l.starts_with('#')).map(|l| l.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        let accounts = Accounts {
            passwd: "root:x:0:0::/root:/bin/sh\nann:x:1000:100::/home/ann:\nbad:x\n".into(),
            group: "users:x:100:\nwheel:x:10:ann,bob\n".into(),
        };
        let find = |text| accounts.find(text).map(|a| (a.uid, a.gid, a.groups));
        assert_eq!(find(""), Ok((0, 0, vec![])));
        assert_eq!(find("ann"), Ok((1000, 100, vec![10])));
        assert_eq!(find("1000"), Ok((1000, 100, vec![10])));
        assert_eq!(find("ann:wheel"), Ok((1000, 10, vec![])));
        assert_eq!(find("7"), Ok((7, 0, vec![])));
        assert_eq!(find("7:8"), Ok((7, 8, vec![])));
        assert!(find("bob").unwrap_err().contains("no user 'bob'"));
        assert!(find("ann:nobody").unwrap_err().contains("no group"));
        assert!(find("bad").is_err());
        assert_eq!(accounts.owner("ann"), Ok((1000, 100)));
        assert_eq!(accounts.owner("55"), Ok((55, 55)));
        assert_eq!(accounts.owner("55:users"), Ok((55, 100)));
        assert_eq!(accounts.owner(":wheel"), Ok((0, 10)));
    }
}
