// What a file is that is no stream of version 2 or later, told by its content (never by its name), with what to do
// about it. Magics first: the legacy stream of Xen 4.4 has none and is only guessed at, and a file compressed by
// `gzip -n` would look like one.

import { viewOf } from '../octets.js';
import { TELLING_BYTES } from '../record-reader.js';
import type { RuleId } from './rules.js';

export interface OtherFile {
  readonly rule: RuleId;
  readonly message: string;
}

/** Pages of the largest guest that a 32-bit toolstack could have saved: 64 GiB. */
const LEGACY_PAGES_MAX = 1 << 24;
/** The legacy format's chunk types are small negative numbers, its batches have at most 1024 pages. */
const LEGACY_CHUNK_MIN = -32;
const LEGACY_BATCH_MAX = 1024;

const COMPRESSED: readonly (readonly [magic: string, name: string, command: string])[] = [
  ['\x1f\x8b', 'gzip', 'gzip -dc'],
  ['\xfd7zXZ\0', 'xz', 'xz -dc'],
  ['\x28\xb5\x2f\xfd', 'zstd', 'zstd -dc'],
  ['BZh', 'bzip2', 'bzip2 -dc'],
  ['\x04\x22\x4d\x18', 'lz4', 'lz4 -dc'],
  ['\x02\x21\x4c\x18', 'lz4', 'lz4 -dc'],
  ['\x89LZO\0\r\n\x1a\n', 'lzop', 'lzop -dc'],
  ['LZIP', 'lzip', 'lzip -dc'],
];

const DISK = 'a disk, and no memory of a guest is in it';
const LIBVIRT_QEMU = "is a save of libvirt's QEMU driver";
const OTHERS: readonly (readonly [magic: string, at: number, says: string])[] = [
  [
    'LibvirtQemudSave',
    0,
    `${LIBVIRT_QEMU}: it holds a migration stream of QEMU's, no stream of Xen; virsh restore reads it`,
  ],
  ['LibvirtQemudPart', 0, `${LIBVIRT_QEMU} that was not finished: nobody can restore it`],
  ['PK\x03\x04', 0, 'is a zip archive: take the stream out of it first'],
  ['7z\xbc\xaf\x27\x1c', 0, 'is a 7z archive: take the stream out of it first'],
  ['KDMV', 0, `is a VMDK image: ${DISK}`],
  ['COWD', 0, `is a VMDK image: ${DISK}`],
  ['# Disk DescriptorFile', 0, `is the descriptor of a VMDK image: ${DISK}`],
  ['conectix', 0, `is a VHD image: ${DISK}`],
  ['vhdxfile', 0, `is a VHDX image: ${DISK}`],
  ['\x7f\x10\xda\xbe', 64, `is a VDI image: ${DISK}`],
  ['KDUMP   ', 0, 'is a compressed kernel dump (kdump): crash reads it'],
  ['ustar', 257, 'is a tar archive: tar -xOf FILE MEMBER | npx romulus verify -'],
  ['\x55\xaa', 510, `begins with a boot sector: it is ${DISK}`],
];

const TEXTS: readonly (readonly [form: RegExp, what: string])[] = [
  [/^</, 'XML, or HTML: a configuration'],
  [/^[{[]/, 'JSON: a configuration'],
  [/^(#.*\n\s*)*(---\s|%YAML|[\w.-]+:(\s|$))/, 'YAML: a configuration'],
];

/** @param bytes the first SAMPLE_BYTES of the file, fewer only where it ends */
export function tellOther(bytes: Uint8Array): OtherFile {
  if (bytes.length < TELLING_BYTES) {
    return none(
      bytes.length === 0
        ? 'is empty: 0 octets'
        : `is too short for any header of a stream: ${bytes.length} octets`,
    );
  }
  for (const [magic, name, command] of COMPRESSED) {
    if (hasAt(bytes, 0, magic)) {
      return none(`is compressed by ${name}: ${command} FILE | npx romulus verify -`);
    }
  }
  const virtual = qemu(bytes) ?? elf(bytes);
  if (virtual !== null) return none(virtual);
  for (const [magic, at, says] of OTHERS) {
    if (hasAt(bytes, at, magic)) return none(says);
  }
  if (bytes.every((octet) => octet === 0)) {
    return none('begins with zeros: an empty disk or volume, or a file that was never written');
  }
  return text(bytes) ?? legacy(bytes) ?? none('begins like none of xl, libxl and libxc');
}

/** What QEMU writes. */
function qemu(bytes: Uint8Array): string | null {
  const view = viewOf(bytes);
  if (hasAt(bytes, 0, 'QEVM')) {
    return `is a migration stream of QEMU's, version ${view.getUint32(4)}: no stream of Xen, QEMU's -incoming reads it`;
  }
  if (hasAt(bytes, 0, 'QFI\xfb')) {
    return `is a qcow2 image, version ${view.getUint32(4)}: ${DISK} (unless qemu-img snapshot -l shows some, for QEMU)`;
  }
  return null;
}

const ELF_TYPE_CORE = 4;

function elf(bytes: Uint8Array): string | null {
  if (!hasAt(bytes, 0, '\x7fELF') || bytes.length < 18) return null;
  const littleEndian = bytes[5] !== 2;
  return viewOf(bytes).getUint16(16, littleEndian) === ELF_TYPE_CORE
    ? 'is a core dump (ELF), as xl dump-core and virsh dump write it: for a debugger, nothing restores it'
    : 'is a program or library (ELF)';
}

function text(bytes: Uint8Array): OtherFile | null {
  if (bytes.some((octet) => octet === 0x7f || (octet < 0x20 && !(octet >= 9 && octet <= 13)))) return null;
  const sample = new TextDecoder('utf-8', { fatal: false }).decode(bytes);
  // A character may be cut at the end of the sample.
  if (sample.slice(0, -1).includes('\ufffd')) return null;
  const first = sample.trimStart();
  const [, what] = TEXTS.find(([form]) => form.test(first)) ?? [null, 'text: a configuration or a log'];
  return none(`is ${what} perhaps, and no stream`);
}

/** 64 bit: pages u32, not 0 | 0.  32 bit: pages u32, not 0 | ff ff ff ff, or a small number. */
function legacy(bytes: Uint8Array): OtherFile | null {
  const view = viewOf(bytes);
  const pages = view.getUint32(0, true);
  const second = view.getInt32(4, true);
  if (pages === 0) return null;
  if (second === 0) return { rule: 'legacy', message: legacyMessage(64, pages) };
  return pages <= LEGACY_PAGES_MAX && second >= LEGACY_CHUNK_MIN && second <= LEGACY_BATCH_MAX
    ? { rule: 'legacy', message: legacyMessage(32, pages) }
    : null;
}

function legacyMessage(bits: number, pages: number): string {
  return `looks like a version-1 (legacy) stream of Xen 4.4 or earlier, by a ${bits}-bit toolstack, of a guest of ${pages} pages; Xen's convert-legacy-stream makes a version-2 stream of it`;
}

/** Each character of the magic is an octet. */
function hasAt(bytes: Uint8Array, at: number, magic: string): boolean {
  return (
    bytes.length >= at + magic.length &&
    Buffer.from(magic, 'latin1').every((octet, index) => bytes[at + index] === octet)
  );
}

function none(says: string): OtherFile {
  return { rule: 'not-a-stream', message: `the file ${says}` };
}
