//! A jail as command-line arguments, for the launcher. One token per fact, a lone `--` at the end.
//!
//! Not a language for people: both ends are of one build, and anything unknown is refused.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;

use crate::{Jail, Layer, Limits, Net};

const END: &str = "--";

impl Jail {
    /// The tokens that [`Jail::from_args`] understands.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = vec![token("program", self.program.as_os_str())];
        let lists = [
            ("needs", &self.needs),
            ("read", &self.read),
            ("write", &self.write),
            ("protect", &self.protected),
        ];
        for (key, paths) in lists {
            args.extend(paths.iter().map(|path| token(key, path.as_os_str())));
        }
        match &self.net {
            Net::None => {}
            Net::Any => args.push("net".into()),
            Net::Ports(ports) => args.push(token("ports", join(ports).as_ref())),
        }
        args.extend(
            [("run", self.run), ("ffi", self.ffi), ("forks", self.forks)]
                .iter()
                .filter(|(_, on)| *on)
                .map(|(key, _)| key.into()),
        );
        let Limits { data, file_size, descriptors, cpu_seconds } = self.limits;
        let limits = [("data", data), ("files", file_size), ("fds", Some(descriptors)), ("cpu", cpu_seconds)];
        for (key, value) in limits {
            args.extend(value.map(|value| token(key, value.to_string().as_ref())));
        }
        args.extend(self.layers.iter().map(|layer| token("layer", layer.name().as_ref())));
        args.push(END.into());
        args
    }

    /// The jail that `args` starts with; takes its tokens and the `--` behind them, nothing more. `None` if they are not
    /// what [`Jail::to_args`] makes.
    pub fn from_args(args: &mut impl Iterator<Item = OsString>) -> Option<Self> {
        let mut jail = Self { layers: BTreeSet::new(), ..Self::new(PathBuf::new()) };
        jail.limits = Limits { data: None, file_size: None, descriptors: 0, cpu_seconds: None };
        loop {
            let arg = args.next()?;
            if arg == END {
                let complete = !jail.program.as_os_str().is_empty() && jail.limits.descriptors > 0;
                return complete.then_some(jail);
            }
            jail.take(&arg)?;
        }
    }

    fn take(&mut self, arg: &OsStr) -> Option<()> {
        let bytes = arg.as_bytes();
        let Some(at) = bytes.iter().position(|byte| *byte == b'=') else {
            match bytes {
                b"net" => self.net = Net::Any,
                b"run" => self.run = true,
                b"ffi" => self.ffi = true,
                b"forks" => self.forks = true,
                _ => return None,
            }
            return Some(());
        };
        let value = &bytes[at + 1..];
        let path = || PathBuf::from(OsString::from_vec(value.to_vec()));
        let text = std::str::from_utf8(value);
        match &bytes[..at] {
            b"program" => self.program = path(),
            b"needs" => self.needs.push(path()),
            b"read" => self.read.push(path()),
            b"write" => self.write.push(path()),
            b"protect" => self.protected.push(path()),
            b"ports" => self.net = Net::Ports(split(text.ok()?)?),
            b"data" => self.limits.data = Some(text.ok()?.parse().ok()?),
            b"files" => self.limits.file_size = Some(text.ok()?.parse().ok()?),
            b"fds" => self.limits.descriptors = text.ok()?.parse().ok()?,
            b"cpu" => self.limits.cpu_seconds = Some(text.ok()?.parse().ok()?),
            b"layer" => {
                let layer = Layer::ALL.into_iter().find(|layer| layer.name().as_bytes() == value)?;
                self.layers.insert(layer);
            }
            _ => return None,
        }
        Some(())
    }
}

fn token(key: &str, value: &OsStr) -> OsString {
    let mut token = OsString::from(key);
    token.push("=");
    token.push(value);
    token
}

fn join(ports: &BTreeSet<u16>) -> String {
    ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",")
}

fn split(ports: &str) -> Option<BTreeSet<u16>> {
    if ports.is_empty() {
        return Some(BTreeSet::new());
    }
    ports.split(',').map(|port| port.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(jail: &Jail) -> Option<Jail> {
        let mut args = jail.to_args().into_iter().chain(["next".into()]);
        let back = Jail::from_args(&mut args);
        assert_eq!(args.next(), Some("next".into()), "took more or less than its own tokens");
        back
    }

    #[test]
    fn a_jail_survives_the_trip() {
        let least = Jail::new("/deno".into());
        assert_eq!(round_trip(&least), Some(least.clone()));
        let most = Jail {
            program: OsStr::from_bytes(b"/not utf-8 \xff=/deno").into(),
            needs: vec!["/n".into()],
            read: vec!["/a b".into(), "/=".into(), "--".into()],
            write: vec!["/w".into()],
            protected: vec!["/p".into()],
            net: Net::Ports([80, 443].into()),
            run: true,
            ffi: true,
            forks: true,
            limits: Limits { data: Some(1), file_size: None, descriptors: 7, cpu_seconds: Some(9) },
            layers: Layer::ALL.into(),
        };
        assert_eq!(round_trip(&most), Some(most.clone()));
        for net in [Net::Any, Net::None, Net::Ports(BTreeSet::new())] {
            let jail = Jail { net, ..least.clone() };
            assert_eq!(round_trip(&jail), Some(jail.clone()));
        }
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        let good = ["program=/deno", "fds=5"];
        for bad in
            ["", "what", "what=1", "fds=x", "layer=none", "ports=1,", "ports=65536", "net=1", "data=-1"]
        {
            let args = good.into_iter().chain([bad, "--"]).map(OsString::from);
            assert_eq!(Jail::from_args(&mut args.into_iter()), None, "{bad}");
        }
        for incomplete in [&good[..], &["fds=5", "--"], &["program=/deno", "--"], &[]] {
            assert_eq!(Jail::from_args(&mut incomplete.iter().map(OsString::from)), None, "{incomplete:?}");
        }
    }
}
