// Stands for what Azurite loads and these tests never use: telemetry, and databases.
module.exports = {};
