//! Where a server is, and how it is reached.

use super::Fault;
use crate::store::StoreError;
use postgres::config::{Host, SslMode};
use postgres::{Client, Config, NoTls};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio_postgres_rustls::MakeRustlsConnect;

/// How long a server may take to answer a request for a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// How long what was sent may stay without acknowledgement.
const UNANSWERED: Duration = Duration::from_secs(30);
/// After so long without traffic, and so often, the other side is asked whether it still lives: a machine that went dark
/// loses its right to write within half a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_TRIES: u32 = 3;

/// The address of a database.
#[derive(Clone, Debug)]
pub(super) struct Address {
    config: Config,
    /// For people: without user and password.
    pub(super) place: String,
}

impl Address {
    /// From a URL (`postgresql://user@host:5432/database`) or key-value pairs, as for libpq. A password that is not in it
    /// comes from `PGPASSWORD`, `PGPASSFILE` or `~/.pgpass`. Certificates are always checked, so that `sslmode` `verify-full`
    /// and `verify-ca` are `require`.
    ///
    /// # Errors
    /// If it cannot be understood.
    pub(super) fn new(text: &str) -> Result<Self, StoreError> {
        let scheme = ["postgresql://", "postgres://"].iter().any(|scheme| text.starts_with(scheme));
        if !scheme && text.contains("://") {
            // The parser would take it for key-value pairs, and show what may be a password.
            return Err(StoreError::Address("it does not begin with `postgresql://`".into()));
        }
        let text =
            text.replace("sslmode=verify-full", "sslmode=require").replace("sslmode=verify-ca", "sslmode=require");
        let mut config: Config = text.parse().map_err(|source: postgres::Error| StoreError::Address(source.into()))?;
        if config.get_hosts().is_empty() {
            config.host("localhost");
        }
        config.connect_timeout(CONNECT).tcp_user_timeout(UNANSWERED).application_name("hpsearch");
        config
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_TRIES);
        let me = ["PGUSER", "USER", "LOGNAME"].into_iter().find_map(|name| std::env::var(name).ok());
        let user = config.get_user().map(str::to_owned).or(me).unwrap_or_else(|| "postgres".to_owned());
        config.user(&user);
        let database = config.get_dbname().unwrap_or(&user).to_owned();
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(name)) => name.clone(),
            #[cfg(unix)]
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => String::new(),
        };
        if host.contains('@') {
            let why = "special characters of user and password must be written as %XX: `@` as %40";
            return Err(StoreError::Address(why.into()));
        }
        let port = config.get_ports().first().copied().unwrap_or(5432);
        if config.get_password().is_none()
            && let Some(password) = password([&host, &port.to_string(), &database, &user])
        {
            config.password(password);
        }
        Ok(Self { config, place: format!("PostgreSQL at {host}:{port}, database {database}") })
    }

    /// A study of the database, for people.
    pub(super) fn study(&self, name: &str) -> String {
        format!("{}, study {name}", self.place)
    }

    /// Opens a connection, whose time limits are set. `sslmode=require` encrypts it, and the server's certificate is
    /// checked: against `PGSSLROOTCERT` if that names a file, else against the system's authorities.
    pub(super) fn connect(&self) -> Result<Client, Fault> {
        let mut client = if self.config.get_ssl_mode() == SslMode::Require {
            self.config.connect(tls()?)?
        } else {
            self.config.connect(NoTls)?
        };
        // Not all servers know all of them. A session that holds a lock is idle for as long as an epoch takes.
        client.execute(
            "SELECT set_config(name, wanted.value, false) FROM (VALUES ('tcp_keepalives_idle', $1), \
             ('tcp_keepalives_interval', $2), ('tcp_keepalives_count', $3), ('tcp_user_timeout', $4), \
             ('idle_session_timeout', '0'), ('idle_in_transaction_session_timeout', '0'), ('statement_timeout', '0'), \
             ('lock_timeout', '0'), ('transaction_timeout', '0'), ('synchronous_commit', 'on')) AS wanted (name, value) \
             JOIN pg_settings AS s USING (name) WHERE NOT (name = 'synchronous_commit' AND s.setting = 'remote_apply')",
            &[
                &KEEPALIVE_IDLE.as_secs().to_string(),
                &KEEPALIVE_INTERVAL.as_secs().to_string(),
                &KEEPALIVE_TRIES.to_string(),
                &UNANSWERED.as_millis().to_string(),
            ],
        )?;
        Ok(client)
    }
}

fn tls() -> Result<MakeRustlsConnect, Fault> {
    let mut roots = rustls::RootCertStore::empty();
    match std::env::var_os("PGSSLROOTCERT").filter(|file| file != "system") {
        Some(file) => {
            let misfit = |e: &dyn std::fmt::Display| {
                Fault::Misfit(format!("read certificates from `{}`: {e}", Path::new(&file).display()).into())
            };
            for certificate in CertificateDer::pem_file_iter(&file).map_err(|e| misfit(&e))? {
                roots.add(certificate.map_err(|e| misfit(&e))?).map_err(|e| misfit(&e))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| Fault::Misfit(e.into()))?;
    Ok(MakeRustlsConnect::new(config.with_root_certificates(roots).with_no_client_auth()))
}

/// The password for host, port, database and user from where libpq takes it.
fn password(wanted: [&str; 4]) -> Option<String> {
    if let Ok(password) = std::env::var("PGPASSWORD") {
        return Some(password);
    }
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass"));
    let file = std::env::var_os("PGPASSFILE").map(PathBuf::from).or_else(home)?;
    in_pgpass(&std::fs::read_to_string(file).ok()?, wanted)
}

/// The password of the first line that fits: `host:port:database:user:password`, `*` for anything, `\` before `:` and `\`.
/// (<https://www.postgresql.org/docs/current/libpq-pgpass.html>)
fn in_pgpass(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let (mut fields, mut characters) = (vec![String::new()], line.chars());
        while let Some(c) = characters.next() {
            match c {
                ':' if fields.len() < 5 => fields.push(String::new()),
                '\\' => fields.last_mut()?.extend(characters.next()),
                c => fields.last_mut()?.push(c),
            }
        }
        let password = fields.get(4)?.clone();
        let fits = fields.iter().zip(wanted).all(|(field, wanted)| field == "*" || field == wanted);
        fits.then_some(password)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_found_as_libpq_finds_it() {
        let text = "# a comment\ndb:5432:lab:ann:first\n*:*:lab:*:a\\:b\\\\c:d\nshort:line\n";
        assert_eq!(in_pgpass(text, ["db", "5432", "lab", "ann"]).as_deref(), Some("first"));
        assert_eq!(in_pgpass(text, ["other", "1", "lab", "bob"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(in_pgpass(text, ["other", "1", "clinic", "bob"]), None);
    }

    #[test]
    fn an_address_is_shown_without_its_password() {
        let address = Address::new("postgresql://ann:secret@db.lab:5433/trials?sslmode=require").unwrap();
        assert_eq!(address.place, "PostgreSQL at db.lab:5433, database trials");
        assert_eq!(
            Address::new("host=/run/pg dbname=x user=ann").unwrap().place,
            "PostgreSQL at /run/pg:5432, database x"
        );
        for wrong in [
            "mysql://ann:secret@db",
            "postgressql://ann:secret@db/x?sslmode=require",
            "postgresql://ann:secret@db:x",
            "postgresql://ann:x@secret@db",
        ] {
            let Err(error) = Address::new(wrong) else { panic!("{wrong} is understood") };
            assert!(!format!("{error:?} {error}").contains("secret"), "{error:?}");
        }
        Address::new("postgresql://ann@db.lab/trials?sslmode=verify-full").unwrap();
    }
}
