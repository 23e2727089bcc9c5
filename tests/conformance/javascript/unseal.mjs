// Opens a sealed file by docs/sealing.md alone, with node's own cryptography: node unseal.mjs SEALED PUBLIC_KEY AES_KEY OUT
import { createDecipheriv, createHash, createPublicKey, hkdfSync, timingSafeEqual, verify } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";

const [sealed, publicKey, aesKey, out] = process.argv.slice(2);
const file = readFileSync(sealed);
const magic = Buffer.from("pocketship seal 2\n");
const domain = Buffer.from("pocketship seal 2\0");
if (!file.subarray(0, magic.length).equals(magic)) throw new Error("no sealed file");
const start = magic.length + 4 + file.readUInt32LE(magic.length);
const header = JSON.parse(file.subarray(magic.length + 4, start).toString());
const raw = createPublicKey(readFileSync(publicKey)).export({ format: "der", type: "spki" }).subarray(-32);
if (header.signer !== raw.toString("hex") || !header.encrypted) throw new Error("another key, or not encrypted");
const signature = file.subarray(file.length - 64);
const signed = file.subarray(0, file.length - 64);
const message = Buffer.concat([domain, createHash("sha256").update(signed).digest()]);
if (!verify(null, message, createPublicKey(readFileSync(publicKey)), signature)) throw new Error("wrong signature");

const secret = Buffer.from(readFileSync(aesKey, "ascii").trim(), "base64");
const derived = (info) => Buffer.from(hkdfSync("sha256", secret, Buffer.from(header.salt, "hex"), info, 32));
const commitment = derived(Buffer.from("pocketship seal 2 commitment\0"));
if (!timingSafeEqual(commitment, Buffer.from(header.commitment, "hex"))) throw new Error("another key");
const key = derived(domain);
const body = signed.subarray(start);
const count = Math.max(1, Math.ceil(header.size / 65536));
const parts = [];
for (let i = 0; i < count; i++) {
  const chunk = body.subarray(i * 65552, (i + 1) * 65552);
  const nonce = Buffer.alloc(12);
  nonce.writeUIntBE(i, 5, 6);
  nonce[11] = i === count - 1 ? 1 : 0;
  const cipher = createDecipheriv("aes-256-gcm", key, nonce);
  cipher.setAAD(signed.subarray(0, start));
  cipher.setAuthTag(chunk.subarray(chunk.length - 16));
  parts.push(cipher.update(chunk.subarray(0, chunk.length - 16)), cipher.final());
}
writeFileSync(out, Buffer.concat(parts));
