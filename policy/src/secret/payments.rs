//! Keys that move money.

super::detectors! {
    "stripe-live-key" r"\b[rs]k_live_\a{20,}" => "sk_live_{24a}", "STRIPE_KEY=rk_live_{99a}"; not "pk_live_{24a}", "sk_live_{24=x}"
    "stripe-webhook-secret" r"\bwhsec_[A-Za-z0-9+/]{32,}" => "whsec_{32a}", "STRIPE_WEBHOOK_SECRET=whsec_{38a}"; not "whsec_{8a}", "whsec_{32=x}"
    "square-token" r"\bsq0(atp|csp|idp)-\k{22,}" => "sq0atp-{22k}", "client_secret=sq0csp-{43k}"; not "sq0atp-{8k}", "sq0xyz-{43k}"
    "shopify-token" r"\bshp(at|ca|pa|ss|ua)_[A-Fa-f0-9]{32}\b" => "shpat_{32h}", "X-Shopify-Access-Token: shpca_{32h}"; not "shpat_{8h}", "shpat_{32=0}"
    "braintree-token" r"\baccess_token\$(production|sandbox)\$\l{16}\$\h{32}\b" => "access_token$production${16l}${32h}", "'access_token$sandbox${16l}${32h}'"; not "access_token$production", "access_token=production${16l}${32h}"
    "plaid-token" r"\b(access|processor)-(production|development|sandbox)-\i\b" => "access-production-{uuid}", "\"access_token\":\"access-sandbox-{uuid}\""; not "access-production-{8h}", "access-staging-{uuid}"
    "flutterwave-secret" r"\bFLWSECK(_TEST|)-[A-Za-z0-9]{12,}-X\b" => "FLWSECK-{32h}-X", "FLW_SECRET=FLWSECK_TEST-{32h}-X"; not "FLWPUBK-{32h}-X", "FLWSECK-{4h}-X"
    "checkout-secret-key" r"\bsk_sbox_[a-z0-9*#$=]{24,}" | r"\bsk_prod_\l{26}\b" => "sk_sbox_{26l}", "Authorization: sk_prod_{26l}"; not "sk_sbox_{8l}", "pk_sbox_{26l}"
    "paddle-api-key" r"\bpdl_(live|sdbx)_apikey_\l{26}_\a{22}_\a{3}\b" => "pdl_live_apikey_{26l}_{22a}_{3a}", "Bearer pdl_sdbx_apikey_{26l}_{22a}_{3a}"; not "pdl_live_apikey_{26l}", "pdl_live_{26l}_{22a}_{3a}"
    "adyen-api-key" r"\bAQE[a-z][a-z][A-Za-z0-9+/=-]{80,}" => "AQEyhm{100a}", "X-API-Key: AQEmg3{110a}"; not "AQEyh{20a}", "AQEyh{100=x}"
}
