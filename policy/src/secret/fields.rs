//! Credentials known by the field they stand in: connection strings, tool configuration, `netrc`.

use super::Check::{BasicPair, Password};

super::detectors! {
    "connection-string" [check Password] r"\b(postgres|postgresql|mysql|mariadb|mongodb|mongodb\+srv|redis|rediss|valkey|amqp|amqps|mssql|sqlserver|clickhouse|cockroachdb|nats|ldap|ldaps|ftp|ftps|sftp|smtp|smtps|imap|imaps|ssh|mqtt|mqtts|couchdb|cassandra|neo4j|bolt|kafka|snowflake|oracle|db2)(\+\a{1,12}|)://[A-Za-z0-9._~%+-]{0,64}:<[A-Za-z0-9._~!$&*+,;=%^#|-]{6,128}>@" => "postgres://app:aB3{12a}@db.example:5432/x", "mongodb+srv://root:{8a}Z9{4a}@cluster.example/"; not "postgres://postgres:postgres@localhost/x", "redis://localhost:6379/0"
    "basic-auth-url" [check Password] r"\bhttp(s|)://[A-Za-z0-9._~%+-]{0,64}:<[A-Za-z0-9._~!$&*+,;=%^#|-]{6,256}>@" => "https://deploy:aB3{16a}@git.example/x.git", "http://me:Zz9{12a}@host.example/"; not "https://user:password@example.com/", "https://example.com:8443/a@b"
    "npmrc-auth-token" r#"_authToken[ ]{0,2}=[ ]{0,2}["']{0,1}<[A-Za-z0-9+/=._-]{20,}>"# => "//registry.example/:_authToken={uuid}", "//npm.example/:_authToken = \"{40a}\""; not "//registry.example/:_authToken=$NPM_TOKEN", "_authToken={30=x}"
    "npmrc-auth" [check BasicPair] r#":_auth[ ]{0,2}=[ ]{0,2}["']{0,1}<[A-Za-z0-9+/]{16,}={0,2}>"# => "//npm.example/:_auth={pair}", "//npm.example/:_auth = \"{pair}\""; not "//npm.example/:_auth=$AUTH", "//npm.example/:_auth={20=A}"
    "docker-config-auth" [check BasicPair] r#""auth"[ ]{0,2}:[ \t\r\n]{0,4}"<[A-Za-z0-9+/]{16,}={0,2}>""# => "{\"auths\":{\"ghcr.example\":{\"auth\":\"{pair}\"}}}", "\"auth\": \"{pair}\""; not "\"auth\": \"required-for-writes\"", "\"auth\": \"{20=A}\""
    "netrc-password" [check Password] r"\bmachine[ \t]{1,4}[A-Za-z0-9.-]{1,253}[ \t\r\n]{1,8}login[ \t]{1,4}[!#-~]{1,128}[ \t\r\n]{1,8}password[ \t]{1,4}<[!#-\[\]-~]{6,256}>" => "machine git.example login me password aB3{16a}", "machine git.example\n  login me\n  password {20a}\n"; not "machine learning login password", "machine git.example login me password hidden"
    "kubeconfig-client-key" r#"client-key-data["']{0,1}:[ ]{0,2}["']{0,1}<LS0tLS1CRUdJTi\e{64,}>"# => "    client-key-data: LS0tLS1CRUdJTi{200e}", "\"client-key-data\":\"LS0tLS1CRUdJTi{200e}\""; not "client-key-data: <base64>", "client-certificate-data: LS0tLS1CRUdJTi{200e}"
    "kubernetes-bootstrap-token" r"--token[ =]<[a-z0-9]{6}\.[a-z0-9]{16}>\b" => "kubeadm join 10.0.0.1:6443 --token {6l}.{16l}", "--token={6l}.{16l} "; not "--token {6l}.{8l}", "--token abcdef"
    "ansible-vault" r"\$ANSIBLE_VAULT;1\.[12];AES256[A-Za-z0-9;_-]{0,40}[\r\n]{1,2}<[0-9a-f \r\n]{80,}>" => "$ANSIBLE_VAULT;1.1;AES256\n{80h}\n{80h}\n", "$ANSIBLE_VAULT;1.2;AES256;prod\n{160h}\n"; not "$ANSIBLE_VAULT;1.1;AES256", "$ANSIBLE_VAULT;1.1;AES256\n{20h}"
    "rails-master-key" r"\bRAILS_MASTER_KEY[ ]{0,1}[=:][ ]{0,1}<\h{32}>\b" => "RAILS_MASTER_KEY={32h}", "RAILS_MASTER_KEY: {32h}"; not "RAILS_MASTER_KEY={20h}", "RAILS_MASTER_KEY={32=0}"
}
