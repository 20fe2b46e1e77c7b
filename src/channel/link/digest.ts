// The digest of a checkpoint: xxh3-64 over the octets of the stream between two boundaries. It guards against what
// TCP's checksum lets through and against our own mistakes; it is no defence against an enemy (TLS is). At some 20
// GB/s it costs less than a look at the pages.

import xxhash from '@node-rs/xxhash';

export class StreamDigest {
  readonly #hash = xxhash.xxh3.Xxh3.withSeed();
  #octets = 0;

  update(bytes: Uint8Array): void {
    this.#hash.update(bytes);
    this.#octets += bytes.length;
  }

  /** The digest of the octets since the last take(), and a new beginning. */
  take(): { readonly bytes: number; readonly digest: bigint } {
    const taken = { bytes: this.#octets, digest: this.#hash.digest() };
    this.#hash.reset();
    this.#octets = 0;
    return taken;
  }
}

/**
 * What both sides have made of memory, checkpoint by checkpoint: xxh3-64 of the digest of each, seeded with what came
 * before. A stream that begins with all memory begins with `before` 0.
 */
export function chained(before: bigint, digest: bigint): bigint {
  const octets = Buffer.allocUnsafe(8);
  octets.writeBigUInt64BE(digest);
  return xxhash.xxh3.xxh64(octets, before);
}
