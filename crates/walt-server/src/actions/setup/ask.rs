//! Questions on a terminal: a line each, with the current value in brackets, which Enter takes.
//!
//! Whole lines are read, without control of the terminal, so that it works on a serial console, in a narrow window and
//! under `script`. Ctrl-C ends the command before anything was changed; so does the end of the input.

use crate::{
    actions::setup::{
        choices::{self, ADMIN_NET, Choices, HUB, NONE},
        proposal::{Used, collisions},
        report::wrap,
    },
    base::{
        config::{OtherAddress, OtherNet},
        registry_config::RegistryConfig,
    },
};
use anyhow::{Result, bail};
use std::io::{BufRead, Write};

/// An interface that can be chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// What is known about it: `connected, 1000 Mbit/s`.
    pub about: String,
    /// Why it cannot be the cable of walt-net, as the rest of a sentence.
    pub refused: Option<String>,
}

/// What the questions show.
#[derive(Debug, Clone, Default)]
pub struct Background {
    /// The interfaces.
    pub interfaces: Vec<Offer>,
    /// Ranges in use.
    pub used: Vec<Used>,
    /// The registries of the configuration.
    pub registries: Vec<RegistryConfig>,
    /// The recipes for PCs and virtual nodes: name, and what they make.
    pub recipes: Vec<(String, String)>,
}

/// Asks on a terminal.
pub struct Asker<R, W> {
    input: R,
    output: W,
    width: usize,
}

/// A choice from a list.
struct Entry<'a> {
    value: &'a str,
    about: &'a str,
}

impl<R: BufRead, W: Write> Asker<R, W> {
    /// Asks by these, in lines of `width` characters.
    pub fn new(input: R, output: W, width: usize) -> Self {
        Self { input, output, width }
    }

    fn say(&mut self, text: &str) -> Result<()> {
        writeln!(self.output, "{}", wrap(text, self.width, 0))?;
        Ok(())
    }

    fn heading(&mut self, text: &str, about: &str) -> Result<()> {
        writeln!(self.output, "\n{text}")?;
        self.say(about)
    }

    /// One line; the default if it is empty.
    fn line(&mut self, question: &str, default: &str) -> Result<String> {
        write!(self.output, "{}: ", wrap(&format!("{question} [{default}]"), self.width, 0))?;
        self.output.flush()?;
        let mut line = String::new();
        if self.input.read_line(&mut line)? == 0 {
            writeln!(self.output)?;
            bail!("the input has ended: nothing was changed");
        }
        let line = line.trim();
        Ok(if line.is_empty() { default.to_owned() } else { line.to_owned() })
    }

    /// Asks until the answer can be used.
    fn value<T>(&mut self, question: &str, default: &str, parse: impl Fn(&str) -> Result<T>) -> Result<T> {
        loop {
            let line = self.line(question, default)?;
            match parse(&line) {
                Ok(value) => return Ok(value),
                Err(e) => self.say(&format!("{e:#}."))?,
            }
        }
    }

    /// A question that is answered by y or n.
    ///
    /// # Errors
    /// The input has ended.
    pub fn yes(&mut self, question: &str, default: bool) -> Result<bool> {
        let default = if default { "y" } else { "n" };
        self.value(question, default, |line| match line {
            "y" | "yes" => Ok(true),
            "n" | "no" => Ok(false),
            _ => bail!("Please answer y or n"),
        })
    }

    /// One of a list, by its number or its name.
    fn choose(&mut self, question: &str, entries: &[Entry<'_>], default: &str) -> Result<String> {
        for (n, entry) in entries.iter().enumerate() {
            let line = format!("{:>3}  {:<18} {}", n + 1, entry.value, entry.about);
            writeln!(self.output, "{}", wrap(line.trim_end(), self.width, 24))?;
        }
        let at = entries.iter().position(|e| e.value == default).unwrap_or(0);
        let values: Vec<&str> = entries.iter().map(|e| e.value).collect();
        self.value(question, &(at + 1).to_string(), |line| {
            let by_number = line.parse::<usize>().ok().and_then(|n| values.get(n.checked_sub(1)?));
            match by_number.or_else(|| values.iter().find(|v| **v == line)) {
                Some(value) => Ok((*value).to_owned()),
                None => bail!("Please answer a number from 1 to {}", values.len()),
            }
        })
    }

    /// All questions, in order.
    ///
    /// # Errors
    /// The input has ended.
    pub fn all(&mut self, choices: &mut Choices, background: &Background) -> Result<()> {
        self.say(
            "Enter takes the value in brackets. Nothing is changed before the end, and ctrl-C ends this.",
        )?;
        self.cable(choices, background)?;
        self.address(choices, background)?;
        self.admin(choices, background)?;
        self.group(choices)?;
        self.registries(choices, background)?;
        self.image(choices, background)?;
        self.heading(
            "Directory",
            "Images, the database and /persist of nodes lie in one directory on a disk (ext4, xfs, btrfs).",
        )?;
        let dir = choices.state_dir.display().to_string();
        choices.state_dir = self
            .value("Directory", &dir, |line| match line.starts_with('/') {
                true => Ok(line.to_owned()),
                false => bail!("The path must begin with /"),
            })?
            .into();
        Ok(())
    }

    fn cable(&mut self, choices: &mut Choices, background: &Background) -> Result<()> {
        self.heading(
            "Cable",
            "The server owns a network, walt-net. Real machines join it by a cable at an interface of its own. Without one, there are virtual nodes only, and you can add a cable later.",
        )?;
        let usable = background.interfaces.iter().filter(|o| o.refused.is_none());
        let mut entries = vec![Entry { value: NONE, about: "virtual nodes only" }];
        entries.extend(usable.map(|o| Entry { value: &o.name, about: &o.about }));
        // One that is not plugged in now stays a choice.
        let current = choices.interface.clone().unwrap_or_else(|| NONE.into());
        if !entries.iter().any(|e| e.value == current) {
            entries.push(Entry { value: &current, about: "as it is now" });
        }
        for refused in &background.interfaces {
            if let Some(why) = refused.refused.as_ref().filter(|_| refused.name != current) {
                self.say(&format!("  -  {} {why}", refused.name))?;
            }
        }
        let chosen = self.choose("Interface of walt-net", &entries, &current)?;
        choices.set_interface(Some(chosen.as_str()).filter(|c| *c != NONE));
        if choices.interface.is_some() {
            let current = choices.vlan.map_or_else(|| NONE.to_owned(), |v| v.to_string());
            choices.vlan =
                self.value("VLAN on it (none: no tag)", &current, |line| choices::vlan(line, "the VLAN"))?;
        }
        Ok(())
    }

    fn address(&mut self, choices: &mut Choices, background: &Background) -> Result<()> {
        self.heading(
            "Addresses",
            "The address of the server on walt-net, with the length of the prefix. Nodes get theirs from the same range, which nothing else may use.",
        )?;
        let current = format!("{}/{}", choices.address.addr, choices.address.prefix);
        choices.address = self.value("Address", &current, |line| {
            let cidr = choices::cidr(line, "the address")?;
            // What is in use already is said by the checks, and may be kept.
            match collisions(cidr.into(), &background.used).first().filter(|_| line != current) {
                Some(used) => {
                    bail!("{} overlaps {}, which is used {}", cidr.network_text(), used.range, used.by)
                }
                None => Ok(cidr),
            }
        })?;
        Ok(())
    }

    fn admin(&mut self, choices: &mut Choices, background: &Background) -> Result<()> {
        self.heading(
            "Administration of switches",
            "Switches are usually managed in a network of their own, walt-adm, where the server needs an address. Most installations begin without.",
        )?;
        if !self.yes(&format!("Use the network {ADMIN_NET}"), choices.admin.is_some())? {
            choices.admin = None;
            return Ok(());
        }
        let before = choices.admin.clone();
        let all = background.interfaces.iter().map(|o| Entry { value: &o.name, about: &o.about });
        let entries: Vec<_> = all.collect();
        let raw_device = match entries.is_empty() {
            true => self.value("Interface", "eth1", |line| Ok(line.to_owned()))?,
            false => {
                let current = before.as_ref().map(|b| b.raw_device.as_str()).unwrap_or_default();
                self.choose("Interface of walt-adm", &entries, current)?
            }
        };
        let current = before.as_ref().and_then(|b| b.vlan).map_or_else(|| NONE.to_owned(), |v| v.to_string());
        let vlan =
            self.value("VLAN on it (none: no tag)", &current, |line| choices::vlan(line, "the VLAN"))?;
        let current = match before.map(|b| b.ip) {
            Some(OtherAddress::Fixed(cidr)) => format!("{}/{}", cidr.addr, cidr.prefix),
            _ => "dhcp".into(),
        };
        let ip = self.value("Address on it, or dhcp", &current, choices::admin_address)?;
        choices.admin = Some(OtherNet { raw_device, vlan, ip });
        Ok(())
    }

    fn group(&mut self, choices: &mut Choices) -> Result<()> {
        self.heading(
            "Users",
            "All accounts of this machine may use the server, or the members of one group only. A group that does not exist is made.",
        )?;
        let current = choices.group.clone().unwrap_or_else(|| NONE.into());
        let group = self.value("Group (none: all accounts)", &current, |line| match is_group_name(line) {
            true => Ok(line.to_owned()),
            false => bail!("'{line}' cannot be the name of a group"),
        })?;
        choices.group = Some(group).filter(|g| g != NONE);
        Ok(())
    }

    fn registries(&mut self, choices: &mut Choices, background: &Background) -> Result<()> {
        self.heading("Registries", "Users clone images from registries, and publish theirs there. Now:")?;
        for registry in &background.registries {
            self.say(&format!("  -  {} ({})", registry.label, registry.endpoint()))?;
        }
        if background.registries.is_empty() {
            self.say("  -  none")?;
        }
        let entries = [
            Entry { value: "keep", about: "as it is" },
            Entry { value: HUB, about: "the docker hub only" },
            Entry { value: "own", about: "the docker hub, and a registry of your own" },
            Entry { value: NONE, about: "none" },
        ];
        let list = match self.choose("Registries", &entries, "keep")?.as_str() {
            "keep" => return Ok(()),
            NONE => vec![NONE.to_owned()],
            HUB => vec![HUB.to_owned()],
            _ => {
                let url = self.value("Its URL", "https://", |line| match line.split_once("://") {
                    Some(("http" | "https", host)) if !host.is_empty() => Ok(line.to_owned()),
                    _ => bail!("The URL begins with https:// or http://, and names a host"),
                })?;
                let label = self.value("Its name in links", "lab", |line| Ok(line.to_owned()))?;
                let auth = self.yes("Do users need a password there", true)?;
                let auth = if auth { "" } else { ",auth=none" };
                vec![HUB.to_owned(), format!("{label}={url}{auth}")]
            }
        };
        choices.registries = Some(choices::registries(&list)?);
        Ok(())
    }

    fn image(&mut self, choices: &mut Choices, background: &Background) -> Result<()> {
        self.heading(
            "Default image",
            "What new nodes boot, made here from packages of Debian. Images for boards are made later: 'walt-server default-image list'.",
        )?;
        let recipes = background.recipes.iter();
        let mut entries: Vec<_> =
            recipes.map(|(name, models)| Entry { value: name, about: models }).collect();
        entries.push(Entry { value: NONE, about: "build no image now" });
        let current = match choices.images.as_slice() {
            [] => NONE.to_owned(),
            [first, ..] => first.clone(),
        };
        if !entries.iter().any(|e| e.value == current) {
            entries.push(Entry { value: &current, about: "as it is now" });
        }
        let chosen = self.choose("Default image", &entries, &current)?;
        if chosen != current {
            choices.images = Some(chosen).filter(|c| c != NONE).into_iter().collect();
        }
        Ok(())
    }
}

/// Whether this can be the name of a group (groupadd(8)).
pub fn is_group_name(name: &str) -> bool {
    /// Longest name of an account or a group (utmp(5)).
    const NAME_MAX: usize = 32;
    let rest = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-');
    name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b == b'_')
        && name.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::Config;

    fn background() -> Background {
        let offer = |name: &str, refused: Option<&str>| Offer {
            name: name.into(),
            about: "connected".into(),
            refused: refused.map(str::to_owned),
        };
        Background {
            interfaces: vec![offer("eth0", Some("carries the default route")), offer("eth1", None)],
            used: vec![Used {
                range: crate::actions::setup::proposal::Range::parse("10.0.0.0/8").unwrap(),
                by: "by a route of eth0".into(),
            }],
            registries: Config::default().registries,
            recipes: vec![
                ("pc-x86-64-default".into(), "PCs".into()),
                ("pc-x86-64-mini".into(), "PCs".into()),
            ],
        }
    }

    fn start() -> Choices {
        Choices::current(&Config::default(), &[], |_| true, vec!["pc-x86-64-default".into()]).unwrap()
    }

    /// What these answers choose, and the screen.
    fn answered(lines: &[&str], width: usize) -> (Result<Choices>, String) {
        let (mut choices, mut screen) = (start(), Vec::new());
        let text: String = lines.iter().map(|l| format!("{l}\n")).collect();
        let asked = Asker::new(text.as_bytes(), &mut screen, width).all(&mut choices, &background());
        (asked.map(|()| choices), String::from_utf8(screen).unwrap())
    }

    #[test]
    fn enter_keeps_everything() {
        let (choices, screen) = answered(&[""; 7], 80);
        assert_eq!(choices.unwrap(), start());
        assert!(screen.contains("eth0 carries the default route"), "{screen}");
    }

    #[test]
    fn answers_are_asked_again_until_they_fit() {
        let lines = [
            "9",
            "eth1",
            "5000",
            "7",
            "10.1.0.1/24",
            "192.168.5.1/24",
            "maybe",
            "y",
            "1",
            "",
            "dhcp",
            "A b",
            "lab",
            "own",
            "reg",
            "https://reg.lab",
            "",
            "n",
            "2",
            "srv",
            "/srv/walt",
        ];
        let (choices, screen) = answered(&lines, 80);
        let choices = choices.unwrap();
        assert_eq!((choices.interface.as_deref(), choices.vlan), (Some("eth1"), Some(7)));
        assert_eq!(choices.address, "192.168.5.1/24".parse().unwrap());
        let admin = OtherNet { raw_device: "eth0".into(), vlan: None, ip: OtherAddress::Dhcp };
        assert_eq!(choices.admin, Some(admin));
        assert_eq!(
            (choices.group.as_deref(), choices.images),
            (Some("lab"), vec!["pc-x86-64-mini".to_owned()])
        );
        assert_eq!(choices.registries.unwrap().len(), 2);
        assert_eq!(choices.state_dir, std::path::Path::new("/srv/walt"));
        for says in [
            "from 1 to 2",
            "1 to 4094",
            "used by a route of eth0",
            "y or n",
            "https:// or http://",
            "begin with /",
        ] {
            assert!(screen.contains(says), "{says}: {screen}");
        }
    }

    #[test]
    fn the_screen_is_narrow_and_the_input_ends() {
        let (choices, screen) = answered(&["", ""], 60);
        assert!(format!("{:#}", choices.unwrap_err()).contains("nothing was changed"));
        assert!(screen.lines().all(|l| l.chars().count() <= 62), "{screen}");
    }
}
