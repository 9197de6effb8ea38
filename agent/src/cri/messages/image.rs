//! Images.

use std::collections::BTreeMap;

use super::{
    sandbox::{Int64Value, PodSandboxConfig},
    stats::Uint64Value,
};

super::messages! {
    ImageSpec {
        #[prost(string, tag = "1")] image: String,
        #[prost(btree_map = "string, string", tag = "2")] annotations: BTreeMap<String, String>,
        #[prost(string, tag = "18")] user_specified_image: String,
        #[prost(string, tag = "19")] runtime_handler: String,
        #[prost(string, tag = "20")] image_ref: String,
    }
    ImageFilter {
        #[prost(message, optional, tag = "1")] image: Option<ImageSpec>,
    }
    ListImagesRequest {
        #[prost(message, optional, tag = "1")] filter: Option<ImageFilter>,
    }
    Image {
        #[prost(string, tag = "1")] id: String,
        #[prost(string, repeated, tag = "2")] repo_tags: Vec<String>,
        #[prost(string, repeated, tag = "3")] repo_digests: Vec<String>,
        #[prost(uint64, tag = "4")] size: u64,
        #[prost(message, optional, tag = "5")] uid: Option<Int64Value>,
        #[prost(string, tag = "6")] username: String,
        #[prost(message, optional, tag = "7")] spec: Option<ImageSpec>,
        #[prost(bool, tag = "8")] pinned: bool,
    }
    ListImagesResponse {
        #[prost(message, repeated, tag = "1")] images: Vec<Image>,
    }
    ImageStatusRequest {
        #[prost(message, optional, tag = "1")] image: Option<ImageSpec>,
        #[prost(bool, tag = "2")] verbose: bool,
    }
    ImageStatusResponse {
        #[prost(message, optional, tag = "1")] image: Option<Image>,
        #[prost(btree_map = "string, string", tag = "2")] info: BTreeMap<String, String>,
    }
    AuthConfig {
        #[prost(string, tag = "1")] username: String,
        #[prost(string, tag = "2")] password: String,
        #[prost(string, tag = "3")] auth: String,
        #[prost(string, tag = "4")] server_address: String,
        #[prost(string, tag = "5")] identity_token: String,
        #[prost(string, tag = "6")] registry_token: String,
    }
    PullImageRequest {
        #[prost(message, optional, tag = "1")] image: Option<ImageSpec>,
        #[prost(message, optional, tag = "2")] auth: Option<AuthConfig>,
        #[prost(message, optional, tag = "3")] sandbox_config: Option<PodSandboxConfig>,
    }
    PullImageResponse {
        #[prost(string, tag = "1")] image_ref: String,
    }
    RemoveImageRequest {
        #[prost(message, optional, tag = "1")] image: Option<ImageSpec>,
    }
    FilesystemIdentifier {
        #[prost(string, tag = "1")] mountpoint: String,
    }
    FilesystemUsage {
        #[prost(int64, tag = "1")] timestamp: i64,
        #[prost(message, optional, tag = "2")] fs_id: Option<FilesystemIdentifier>,
        #[prost(message, optional, tag = "3")] used_bytes: Option<Uint64Value>,
        #[prost(message, optional, tag = "4")] inodes_used: Option<Uint64Value>,
    }
    ImageFsInfoResponse {
        #[prost(message, repeated, tag = "1")] image_filesystems: Vec<FilesystemUsage>,
        #[prost(message, repeated, tag = "2")] container_filesystems: Vec<FilesystemUsage>,
    }
}
