// The files of libvirt and of XenServer that hold one of Xen's streams among other things.
//
//   libvirt's libxl driver   | magic 16 | version u32 | XML length u32 | 0 … to 64 | domain XML | libxl's stream |
//
//   xenopsd                  | "XenSavedDomv2-\n" | record | record | … | End_of_image, 0 |
//                              record: | type u64 | length u64 | body |      the body of Libxc is libxc's stream, which
//                              itself says where it ends: its length is 0, and so is that of Demu, which does not
//
// Sources: libvirt's src/libxl/libxl_conf.h (struct _libxlSavefileHeader; the file is in the byte order of its host);
// xen-api's ocaml/xenopsd/lib/suspend_image.ml and its document "Suspend image framing format".

import { StreamError } from '../error.js';
import { beginsWith, viewOf } from '../octets.js';

const LIBVIRT_MAGIC = new TextEncoder().encode('libvirt-xml\n \0 \r');
export const LIBVIRT_HEADER_BYTES = 64;
const LIBVIRT_VERSION_MAX = 2;

const XENOPSD_SIGNATURE = new TextEncoder().encode('XenSavedDomv2-\n');
const XENOPSD_SIGNATURE_LEGACY = new TextEncoder().encode('XenSavedDomain\n');
export const XENOPSD_SIGNATURE_BYTES = XENOPSD_SIGNATURE.length;
export const XENOPSD_RECORD_BYTES = 16;

export const XenopsdType = {
  XENOPS: 0x000f,
  LIBXC: 0x00f0,
  LIBXL: 0x00f1,
  LIBXC_LEGACY: 0x00f2,
  QEMU_TRAD: 0x0f00,
  QEMU_XEN: 0x0f01,
  DEMU: 0x0f10,
  VARSTORED: 0x0f11,
  SWTPM0: 0x0f12,
  SWTPM: 0x0f13,
  END_OF_IMAGE: 0xffff,
} as const;

/** As xenopsd calls them: "Libxc_legacy". */
const xenopsdNames: ReadonlyMap<number, string> = new Map(
  Object.entries(XenopsdType).map(([name, type]) => [type, name.charAt(0) + name.slice(1).toLowerCase()]),
);

export function beginsLikeLibvirt(bytes: Uint8Array): boolean {
  return beginsWith(bytes, LIBVIRT_MAGIC);
}

export function beginsLikeXenopsd(bytes: Uint8Array): boolean {
  return beginsWith(bytes, XENOPSD_SIGNATURE) || beginsWith(bytes, XENOPSD_SIGNATURE_LEGACY);
}

/** @throws StreamError BAD_ID, UNSUPPORTED_VERSION */
export function decodeLibvirtHeader(bytes: Uint8Array): { readonly xmlLength: number } {
  if (!beginsLikeLibvirt(bytes)) {
    throw new StreamError('BAD_ID', "it begins like libvirt's header, and then does not", { offset: 0 });
  }
  const view = viewOf(bytes);
  const version = view.getUint32(16, true);
  const xmlLength = view.getUint32(20, true);
  if (version > LIBVIRT_VERSION_MAX && xmlLength === 0) {
    // libvirt's src/ch/ch_saveimage.c: the same magic, and the XML's length where the version stands here.
    const message = "the domain XML of libvirt's cloud-hypervisor driver: no stream of Xen is in it";
    throw new StreamError('UNSUPPORTED_VERSION', message, { offset: 16, version });
  }
  if (version < 1 || version > LIBVIRT_VERSION_MAX) {
    const message = `libvirt's header of version ${version}, known are 1 and ${LIBVIRT_VERSION_MAX}`;
    throw new StreamError('UNSUPPORTED_VERSION', message, { offset: 16, version });
  }
  return { xmlLength };
}

/** @throws StreamError BAD_ID, UNSUPPORTED_VERSION */
export function checkXenopsdSignature(bytes: Uint8Array): void {
  if (beginsWith(bytes, XENOPSD_SIGNATURE_LEGACY)) {
    throw new StreamError(
      'UNSUPPORTED_VERSION',
      "an image of XenServer 6.2 or earlier: it holds a version-1 (legacy) stream, of which Xen's convert-legacy-stream makes a version-2 stream",
      { offset: 0 },
    );
  }
  if (!beginsWith(bytes, XENOPSD_SIGNATURE)) {
    throw new StreamError('BAD_ID', "it begins like xenopsd's signature, and then does not", { offset: 0 });
  }
}

/**
 * A record's type and length.
 * @param streamSeen the stream has come already
 * @throws StreamError BAD_RECORD where the walk cannot go on
 */
export function xenopsdRecord(
  bytes: Uint8Array,
  offset: number,
  streamSeen: boolean,
): { readonly type: number; readonly name: string; readonly length: number } {
  const view = viewOf(bytes);
  const type = Number(view.getBigUint64(0, true));
  const length = Number(view.getBigUint64(8, true));
  const fail = (message: string): never => {
    throw new StreamError('BAD_RECORD', message, { offset, type });
  };
  const name = xenopsdNames.get(type) ?? fail(`a record of xenopsd's of unknown type 0x${type.toString(16)}`);
  switch (type) {
    case XenopsdType.LIBXC:
    case XenopsdType.LIBXL:
      if (streamSeen) fail('a second stream in an image of xenopsd');
      break;
    case XenopsdType.LIBXC_LEGACY:
      throw new StreamError('UNSUPPORTED_VERSION', 'a version-1 (legacy) stream in an image of xenopsd', {
        offset,
      });
    case XenopsdType.DEMU:
      if (!streamSeen) fail('before the stream the state of a virtual GPU, which does not say where it ends');
      break;
    case XenopsdType.END_OF_IMAGE:
      if (!streamSeen) fail('an image of xenopsd without a stream');
      break;
    default:
      break;
  }
  return { type, name, length };
}
