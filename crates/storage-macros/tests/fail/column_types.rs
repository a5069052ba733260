use storage_core::Entity;

#[derive(serde::Serialize, serde::Deserialize)]
enum Status {
    Ready,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Unknown {
    #[entity(key)]
    id: String,
    status: Status,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Two {
    #[entity(key)]
    id: String,
    #[entity(text, json)]
    status: String,
}

#[derive(Entity)]
#[entity(table = "jobs")]
struct Bytes {
    #[entity(key)]
    id: String,
    #[entity(bytes)]
    body: String,
}

fn main() {}
