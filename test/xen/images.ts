// The images that real Xen is given: what Romulus makes of streams that real Xen wrote.
//
//   pv-save, hvm-save      restored into the memory hypervisor, among other machine frames, and saved from there
//   pv-remus-6ckpt, hvm-…  cut in the middle of a record, and recovered

import { execFile } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { MemoryDomain } from '../memory/domain.js';
import { MemoryMachine, shuffledFrames } from '../memory/machine.js';
import { MemoryPvDomain } from '../memory/pv-domain.js';
import { PvGuestKernel } from '../memory/pv-guest.js';
import type { SourceDomain, TargetDomain } from '../../src/hypervisor/port.js';
import { restoreDomain } from '../../src/restore/restore.js';
import { saveDomain } from '../../src/save/save.js';
import { PAGE_SIZE, RECORD_HEADER_BYTES } from '../../src/stream/format.js';
import { encodeLibxlHeader, LIBXL_HEADER_BYTES, LibxlRecordType } from '../../src/stream/libxl.js';
import { concatenate, encodeRecord } from '../../src/stream/writer.js';
import { decodeXlHeader, encodeXlHeader } from '../../src/stream/xl.js';
import { type ListedRecord, readFixture, readRecordList } from '../fixtures/xen.js';
import { readPvImage } from '../guest/pv-image.js';
import { planOf, privateSource } from '../guest/pv-support.js';
import { driver, RecordingSink } from '../save/support.js';

// Seen from dist/test/xen.
const romulus = fileURLToPath(new URL('../../src/cli/main.js', import.meta.url));
/** What Xen's HVM streams walk: 4 GiB less the 16 MiB below it. */
const HVM_PFNS = 0xff000;
const RECOVER_TIMEOUT_MS = 30_000;

export interface LabImage {
  /** What it was made of, for people. */
  readonly name: string;
  /** The domain's name, by its configuration. */
  readonly domain: string;
  /** A file of xl. */
  readonly octets: Uint8Array;
  /** The last one that the guest had printed when the image was taken. */
  readonly lastTick: number;
}

/** All images. `scratch` is a folder for files on the way. */
export async function writeImages(scratch: string, signal: AbortSignal): Promise<LabImage[]> {
  const images: LabImage[] = [];
  for (const kind of ['pv', 'hvm'] as const) {
    images.push(await savedAgain(kind));
    for (const cut of cutsOf(`${kind}-remus-6ckpt`)) {
      const files = { in: path.join(scratch, 'cut'), out: path.join(scratch, 'recovered') };
      await writeFile(files.in, cut.octets);
      const options = { signal, timeout: RECOVER_TIMEOUT_MS };
      await promisify(execFile)(process.execPath, [romulus, 'recover', files.in, files.out], options);
      images.push({ ...cut, domain: domainOf(kind), octets: await readFile(files.out) });
    }
  }
  return images;
}

/**
 * The image with a word of a page wrong that its guest looks at. Such pages hold rising numbers.
 * @throws Error if there is none
 */
export function damaged(image: LabImage): LabImage {
  const octets = Buffer.from(image.octets);
  // libxc's stream keeps its pages at multiples of 8 octets from its beginning, and is itself anywhere in the file.
  const first = octets.indexOf('LibxlFmt') + LIBXL_HEADER_BYTES + RECORD_HEADER_BYTES;
  for (let page = first; page + PAGE_SIZE <= octets.length; page += 8) {
    const start = octets.readUInt32LE(page);
    let word = 1;
    while (word < PAGE_SIZE / 4 && octets.readUInt32LE(page + word * 4) === (start + word) >>> 0) word++;
    if (word === PAGE_SIZE / 4) {
      octets.writeUInt32LE(start, page + PAGE_SIZE / 2);
      return { ...image, name: `${image.name}, a word damaged`, octets };
    }
  }
  throw new Error(`${image.name} has no page of rising numbers`);
}

async function savedAgain(kind: 'pv' | 'hvm'): Promise<LabImage> {
  const name = `${kind}-save`;
  const libxc = readFixture(`${name}.libxc`);
  const domain = kind === 'pv' ? await restorePv(libxc) : await restoreHvm(libxc);
  await domain.start();
  const sink = new RecordingSink();
  await saveDomain({
    domain,
    sink,
    streamType: 'plain',
    live: false,
    callbacks: driver({ domain, checkpoints: 0 }),
  });
  const original = readFixture(name);
  const octets = concatenate([
    encodeXlHeader(decodeXlHeader(original)),
    encodeLibxlHeader(),
    encodeRecord(LibxlRecordType.LIBXC_CONTEXT),
    sink.octets(),
    encodeRecord(LibxlRecordType.END),
  ]);
  return { name: `${name}, saved again`, domain: domainOf(kind), octets, lastTick: lastTickIn(original) };
}

async function restorePv(libxc: Uint8Array): Promise<SourceDomain & TargetDomain> {
  const image = readPvImage(libxc);
  const frames = image.maxPfn + 100;
  const machine = new MemoryMachine({ frames, order: shuffledFrames(frames, 7) });
  const domain = new MemoryPvDomain({ machine, pages: image.maxPfn + 1, vcpus: 1 });
  await restorePlain(domain, libxc);
  // What the guest's own kernel does when it is suspended: it turns the frame numbers that it holds into pfns.
  domain.guest = new PvGuestKernel(domain, planOf(image));
  return domain;
}

async function restoreHvm(libxc: Uint8Array): Promise<SourceDomain & TargetDomain> {
  const domain = new MemoryDomain({ pages: HVM_PFNS, empty: true });
  await restorePlain(domain, libxc);
  return domain;
}

async function restorePlain(domain: TargetDomain, libxc: Uint8Array): Promise<void> {
  await restoreDomain({
    domain,
    source: privateSource(libxc),
    streamType: 'plain',
    callbacks: { checkpoint: () => Promise.resolve('success') },
  });
}

interface Cut {
  readonly name: string;
  readonly octets: Uint8Array;
  readonly lastTick: number;
}

/** The stream up to somewhere in three of its records, early and late. */
function cutsOf(name: string): Cut[] {
  const whole = readFixture(name);
  const { records } = readRecordList(name);
  const checkpoint = (number: number) =>
    records.findIndex((record) => record.name === 'CHECKPOINT' && record.detail === `#${number}`);
  const after = (number: number, wanted: string) =>
    records.slice(checkpoint(number)).find((record) => record.name === wanted);
  const cut = (last: number, record: ListedRecord | undefined, where: string, octetsOf: number): Cut => {
    const end = records[checkpoint(last)];
    if (record === undefined || end === undefined) throw new Error(`${name} has no such record`);
    const offset = record.offset + octetsOf;
    return {
      name: `${name}, cut at ${offset} in ${where} after checkpoint ${last}`,
      octets: whole.subarray(0, offset),
      lastTick: lastTickIn(whole.subarray(0, end.offset)),
    };
  };
  const pages = after(1, 'PAGE_DATA');
  const final = records[checkpoint(6)];
  return [
    cut(1, pages, 'the pages', (pages?.length ?? 0) >>> 1),
    cut(4, after(4, 'X86_TSC_INFO'), 'the header of a record', 3),
    cut(5, final, 'the CHECKPOINT record', (final?.length ?? 0) - 1),
  ];
}

/** The last tick in the guest's console ring, all of whose text is somewhere in these octets. */
function lastTickIn(octets: Uint8Array): number {
  const text = Buffer.from(octets.buffer, octets.byteOffset, octets.length).toString('latin1');
  const ticks = [...text.matchAll(/TICK (\d+) OK\n/g)].map((match) => Number(match[1]));
  if (ticks.length === 0) throw new Error('the stream holds no tick');
  return Math.max(...ticks);
}

function domainOf(kind: 'pv' | 'hvm'): string {
  return kind === 'pv' ? 'tpv' : 'tpvh';
}
