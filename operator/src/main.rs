//! The program; everything is in the library, where tests and fuzz targets reach it.

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    volttron_operator::run().await
}
