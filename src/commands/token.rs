//! `coracle token`: the tokens nodes, servers and witnesses join with.

use std::{io::Write, time::Duration};

use anyhow::{Context, bail};
use base64::Engine;
use clap::Subcommand;
use coracle_proto::join_token::{
    BootstrapToken, JoinToken, Record, Role, SECRET_NAMESPACE, SECRET_TYPE, SERVER_GROUP, WITNESS_GROUP,
};
use k8s_openapi::{api::core::v1::Secret, jiff::Timestamp};
use kube::{
    Api,
    api::{DeleteParams, ListParams, PostParams},
    config::Kubeconfig,
};
use rand::Rng;

use super::reach::Reach;

/// Flags of `token`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) what: What,
    #[command(flatten)]
    pub(crate) reach: Reach,
}

/// What to do with tokens.
#[derive(Subcommand)]
pub(crate) enum What {
    /// Make a token and print it.
    Create {
        /// Hours it is valid; 0 is for ever.
        #[arg(long, default_value_t = 24, value_name = "HOURS")]
        ttl: u32,
        /// For one further server instead of nodes: whoever shows it is given all keys of the cluster, so it is worth as
        /// much as they are until it was used.
        #[arg(long)]
        server: bool,
        /// For one witness instead of nodes: whoever shows it is given no key of the cluster, but a vote.
        #[arg(long, conflicts_with = "server")]
        witness: bool,
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List the tokens there are, without their secrets.
    List,
    /// Make a token worthless.
    Revoke {
        /// Its id: the six characters `token list` shows.
        id: String,
    },
}

/// Does what is asked.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let (kubeconfig, file) = args.reach.read()?;
    let authority = authority_of(&kubeconfig).with_context(|| format!("--kubeconfig {}", file.display()))?;
    let secrets: Api<Secret> = Api::namespaced(args.reach.client().await?, SECRET_NAMESPACE);
    let mut out = std::io::stdout().lock();
    match args.what {
        What::Create { ttl, server, witness, description } => {
            let role = match (server, witness) {
                (true, _) => Role::Server,
                (false, true) => Role::Witness,
                (false, false) => Role::Nodes,
            };
            let token = BootstrapToken::generate(|below| rand::rng().random_range(0..below.max(1)));
            let expires = (ttl > 0).then(|| Timestamp::now() + Duration::from_secs(u64::from(ttl) * 3600));
            secrets.create(&PostParams::default(), &token.to_secret(role, expires, &description)).await?;
            writeln!(out, "{}", JoinToken::new(authority, token))?;
        }
        What::List => {
            let found = secrets.list(&ListParams::default().fields(&format!("type={SECRET_TYPE}"))).await?;
            writeln!(out, "{:<8} {:<7} {:<22} DESCRIPTION", "ID", "FOR", "EXPIRES")?;
            for record in found.items.iter().filter_map(Record::from_secret) {
                let expires = record.expires.map_or_else(|| "never".to_owned(), |time| time.to_string());
                let is_for = |role: &str| record.groups.iter().any(|group| group == role);
                let roles = [(SERVER_GROUP, "server"), (WITNESS_GROUP, "witness")];
                let role = roles.iter().find(|(group, _)| is_for(group)).map_or("nodes", |(_, role)| role);
                writeln!(out, "{:<8} {role:<7} {expires:<22} {}", record.token.id(), record.description)?;
            }
        }
        What::Revoke { id } => {
            match secrets.delete(&BootstrapToken::secret_name(&id), &DeleteParams::default()).await {
                Ok(_) => writeln!(out, "{id} is worthless now")?,
                Err(kube::Error::Api(status)) if status.code == 404 => bail!("there is no token {id}"),
                Err(error) => return Err(error.into()),
            }
        }
    }
    Ok(())
}

/// SHA-256 of the certificate that the kubeconfig trusts.
fn authority_of(kubeconfig: &Kubeconfig) -> anyhow::Result<[u8; 32]> {
    let cluster = kubeconfig.clusters.first().and_then(|c| c.cluster.as_ref()).context("no cluster in it")?;
    let data = cluster.certificate_authority_data.as_deref().context("no certificate-authority-data in it")?;
    let pem = base64::engine::general_purpose::STANDARD.decode(data)?;
    let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(&pem)?;
    Ok(fingerprint(&certificate))
}

fn fingerprint(certificate: &rustls::pki_types::CertificateDer<'_>) -> [u8; 32] {
    use sha2::Digest;
    sha2::Sha256::digest(certificate).into()
}
