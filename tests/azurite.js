// Starts Azurite, Microsoft's emulator of Azure storage, with one empty container, and prints its port. It ends with
// the input of this process. Usage: azurite.js FOLDER_OF_THE_PACKAGE CONTAINER

const crypto = require("node:crypto");
const net = require("node:net");
const path = require("node:path");

// The account that every emulator has, and its published key.
const ACCOUNT = "devstoreaccount1";
const KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const [folder, container] = process.argv.slice(2);

function freePort() {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}

async function createContainer(port) {
  const date = new Date().toUTCString();
  const version = "2021-12-02";
  const resource = `/${ACCOUNT}/${ACCOUNT}/${container}\nrestype:container`;
  const text = `PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:${date}\nx-ms-version:${version}\n${resource}`;
  const signature = crypto.createHmac("sha256", Buffer.from(KEY, "base64")).update(text).digest("base64");
  const answer = await fetch(`http://127.0.0.1:${port}/${ACCOUNT}/${container}?restype=container`, {
    method: "PUT",
    headers: { "x-ms-date": date, "x-ms-version": version, Authorization: `SharedKey ${ACCOUNT}:${signature}` },
  });
  if (answer.status !== 201) {
    throw new Error(`the container was not created: ${answer.status} ${await answer.text()}`);
  }
}

async function untilItListens(port) {
  for (;;) {
    try {
      return await createContainer(port);
    } catch (error) {
      if (error.cause?.code !== "ECONNREFUSED") throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}

async function main() {
  const port = await freePort();
  process.argv.splice(2, Infinity, "--silent", "--skipApiVersionCheck", "--inMemoryPersistence");
  process.argv.push("--blobHost", "127.0.0.1", "--blobPort", String(port));
  // Azurite says on standard output that it listens; what is read there is the port alone.
  console.log = () => {};
  require(path.resolve(folder, "dist/src/blob/main.js"));
  await untilItListens(port);
  process.stdout.write(`${port}\n`);
}

process.stdin.resume().on("end", () => process.exit(0));
main().catch((error) => {
  process.stderr.write(`${error.message}\n`);
  process.exit(1);
});
