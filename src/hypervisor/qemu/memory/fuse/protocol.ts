// The kernel's FUSE protocol, as far as two files need it: fields by their offsets, little-endian (x86). Numbers and
// layouts are the kernel's interface (include/uapi/linux/fuse.h, version 7.31 and later).
//
//   request   | len u32 | opcode u32 | unique u64 | node u64 | uid, gid, pid u32 | u32 |  then what the opcode takes
//   answer    | len u32 | error i32  | unique u64 |                                        then what it gives

export const IN_HEADER_BYTES = 40;
export const OUT_HEADER_BYTES = 16;
/** What stands between the header and the data of a WRITE. */
export const WRITE_IN_BYTES = 40;
/** The largest read or write: TRANSFER_PAGES_MAX pages. */
const TRANSFER_PAGES_MAX = 256;
export const WRITE_BYTES_MAX = TRANSFER_PAGES_MAX * 4096;
/** Readahead that is allowed: a guest that touches its memory for the first time is asked for in larger pieces. */
export const READAHEAD_BYTES_MAX = 1024 * 1024;

export const Opcode = {
  LOOKUP: 1,
  FORGET: 2,
  GETATTR: 3,
  SETATTR: 4,
  OPEN: 14,
  READ: 15,
  WRITE: 16,
  STATFS: 17,
  RELEASE: 18,
  FSYNC: 20,
  INIT: 26,
  OPENDIR: 27,
  RELEASEDIR: 29,
  INTERRUPT: 36,
  DESTROY: 38,
  BATCH_FORGET: 42,
} as const;

/** INIT: asynchronous reads, large writes, parallel directory operations, requests of TRANSFER_PAGES_MAX pages. */
const INIT_FLAGS = (1 << 0) | (1 << 5) | (1 << 18) | (1 << 22);

/** OPEN: what is in the page cache stays valid. */
export const FOPEN_KEEP_CACHE = 1 << 1;
/** OPEN: closing a descriptor writes nothing back, without a writeback cache, from Linux 5.16 on. */
export const FOPEN_NOFLUSH = 1 << 5;

export const Errno = { EPERM: 1, ENOENT: 2, EINVAL: 22, ENOSYS: 38 } as const;

export const ROOT_NODE = 1;
export const RAM_NODE = 2;
export const RAM_NAME = 'ram';

const S_IFDIR = 0o040000;
const S_IFREG = 0o100000;
const PROTOCOL_MAJOR = 7;
const PROTOCOL_MINOR_MIN = 31;
/** How long the kernel may believe names and attributes, which never change: seconds. */
const VALID_SECONDS = 3600n * 24n * 365n;

/** One request, read in place. */
export class Request {
  readonly #view: DataView;
  readonly octets: Buffer;

  constructor(octets: Buffer) {
    this.octets = octets;
    this.#view = new DataView(octets.buffer, octets.byteOffset, octets.length);
  }

  get opcode(): number {
    return this.#view.getUint32(4, true);
  }
  get unique(): bigint {
    return this.#view.getBigUint64(8, true);
  }
  get node(): number {
    return Number(this.#view.getBigUint64(16, true));
  }

  u32(offset: number): number {
    return this.#view.getUint32(IN_HEADER_BYTES + offset, true);
  }
  /** A file offset: exact below 2^53. */
  u64(offset: number): number {
    return Number(this.#view.getBigUint64(IN_HEADER_BYTES + offset, true));
  }

  /** The name after the header, as in LOOKUP. `length`: octets of the whole request. */
  name(length: number): string {
    const end = this.octets.indexOf(0, IN_HEADER_BYTES);
    return this.octets.toString('utf8', IN_HEADER_BYTES, end < 0 ? length : Math.min(end, length));
  }
}

/** The header of an answer with `bodyBytes` after it; `errno` 0 for success. */
export function putHeader(answer: DataView, unique: bigint, errno: number, bodyBytes: number): number {
  const length = OUT_HEADER_BYTES + bodyBytes;
  answer.setUint32(0, length, true);
  answer.setInt32(4, -errno, true);
  answer.setBigUint64(8, unique, true);
  return length;
}

/**
 * The answer to INIT: 64 octets, or null if the kernel speaks another or too old a version. A writeback cache is not
 * asked for. It is about write(), which goes to the server at once without one; what is written through a mapping is
 * written back either way. With one, whoever closes a descriptor waits until all is written back, and that is also each
 * child that we start, and we with it, until it runs its program (fs/fuse/file.c, fuse_flush).
 */
export function putInit(body: DataView, request: Request): number | null {
  const major = request.u32(0);
  const minor = request.u32(4);
  if (major !== PROTOCOL_MAJOR || minor < PROTOCOL_MINOR_MIN) return null;
  body.setUint32(0, PROTOCOL_MAJOR, true);
  body.setUint32(4, PROTOCOL_MINOR_MIN, true);
  body.setUint32(8, Math.min(request.u32(8), READAHEAD_BYTES_MAX), true);
  body.setUint32(12, (request.u32(12) & INIT_FLAGS) >>> 0, true);
  body.setUint16(16, 64, true); // requests in the background
  body.setUint16(18, 48, true); // congestion: writers wait
  body.setUint32(20, WRITE_BYTES_MAX, true);
  body.setUint32(24, 1, true); // time granularity, ns
  body.setUint16(28, TRANSFER_PAGES_MAX, true);
  return 64;
}

/** The attributes of a node, 88 octets; `fileBytes` is 0 for the root. */
function putAttributes(body: DataView, at: number, node: number, fileBytes: number): void {
  const isFile = node !== ROOT_NODE;
  const bytes = BigInt(fileBytes);
  body.setBigUint64(at, BigInt(node), true);
  body.setBigUint64(at + 8, bytes, true);
  body.setBigUint64(at + 16, bytes / 512n, true);
  body.setUint32(at + 60, isFile ? S_IFREG | 0o600 : S_IFDIR | 0o700, true);
  body.setUint32(at + 64, isFile ? 1 : 2, true); // links
  body.setUint32(at + 68, process.getuid?.() ?? 0, true);
  body.setUint32(at + 72, process.getgid?.() ?? 0, true);
  body.setUint32(at + 80, 4096, true); // block size
}

/** LOOKUP. */
export function putEntry(body: DataView, node: number, fileBytes: number): number {
  body.setBigUint64(0, BigInt(node), true);
  body.setBigUint64(16, VALID_SECONDS, true);
  body.setBigUint64(24, VALID_SECONDS, true);
  putAttributes(body, 40, node, fileBytes);
  return 128;
}

/** GETATTR and SETATTR. */
export function putAttributeAnswer(body: DataView, node: number, fileBytes: number): number {
  body.setBigUint64(0, VALID_SECONDS, true);
  putAttributes(body, 16, node, fileBytes);
  return 104;
}

export function putOpen(body: DataView, flags: number): number {
  body.setUint32(8, flags, true);
  return 16;
}

/** What stands before the data of a NOTIFY_STORE: a header, node u64, offset u64, size u32, u32. */
export const STORE_HEADER_BYTES = OUT_HEADER_BYTES + 24;
const NOTIFY_STORE = 4;

/**
 * A notification: the page cache holds this of the node's file from now on. The octets of all of the message.
 * Source: include/uapi/linux/fuse.h (fuse_notify_store_out); a notification has its code for an error, and answers nothing.
 */
export function putStoreHeader(message: DataView, node: number, offset: number, length: number): number {
  const total = STORE_HEADER_BYTES + length;
  message.setUint32(0, total, true);
  message.setInt32(4, NOTIFY_STORE, true);
  message.setBigUint64(8, 0n, true);
  message.setUint32(16, node, true);
  message.setUint32(20, 0, true);
  message.setUint32(24, offset % 2 ** 32, true);
  message.setUint32(28, Math.floor(offset / 2 ** 32), true);
  message.setUint32(32, length, true);
  return total;
}

export function putStatfs(body: DataView, ramBytes: number): number {
  body.setBigUint64(0, BigInt(ramBytes / 4096), true);
  body.setBigUint64(24, 2n, true); // files
  body.setUint32(40, 4096, true); // block size
  body.setUint32(44, 255, true); // longest name
  body.setUint32(48, 4096, true); // fragment size
  return 80;
}
