// Files of libvirt and xenopsd around a stream, laid out by hand after libvirt's src/libxl/libxl_conf.h (struct
// _libxlSavefileHeader) and xen-api's ocaml/xenopsd/lib/suspend_image.ml.

export function libvirtFile(stream: Uint8Array, version = 2, xml = '<domain type="xen"/>\0'): Buffer {
  const header = Buffer.alloc(64);
  header.write('libvirt-xml\n \0 \r', 'latin1');
  header.writeUInt32LE(version, 16);
  header.writeUInt32LE(xml.length, 20);
  return Buffer.concat([header, Buffer.from(xml), stream]);
}

export function xenopsdHeader(type: number, length: number): Buffer {
  const header = Buffer.alloc(16);
  header.writeBigUInt64LE(BigInt(type), 0);
  header.writeBigUInt64LE(BigInt(length), 8);
  return header;
}

/** As xenopsd writes an HVM guest: its own record, the stream, UEFI's variables, QEMU's state, the footer. */
export function xenopsdFile(stream: Uint8Array): Buffer {
  const record = (type: number, body: string): Buffer =>
    Buffer.concat([xenopsdHeader(type, body.length), Buffer.from(body)]);
  return Buffer.concat([
    Buffer.from('XenSavedDomv2-\n'),
    record(0x000f, '((time 20260101T00:00:00Z)(word_size 64))'),
    xenopsdHeader(0x00f0, 0),
    stream,
    record(0x0f11, 'VARS'),
    record(0x0f00, 'QEMU state of 31 octets, or so.'),
    xenopsdHeader(0xffff, 0),
  ]);
}
