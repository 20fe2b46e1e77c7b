// A disk that two guests see, and a guest that counts on it: whoever else writes there makes the count go back.

import { closeSync, openSync, readSync } from 'node:fs';
import { truncate, writeFile } from 'node:fs/promises';
import { withImage } from '../support.js';

/** A number every 10 ms, each larger by one, into the first sector of an ISA-IDE disk: as a multiboot image. */
// fill the GDT and the IDT (0x80000), timer to 100 Hz; ebx = 0
// next: inc ebx; 0x70000: 128 times ebx; wait until not busy; out 0x1f6, 0xe0; wait; sector count 1, sector 0;
// out 0x1f7, 0x30 (write); wait for DRQ; rep outsw; wait; sti; hlt; cli; jmp next
const COUNTING = Buffer.from(
  'fafcbc000009000f011510011000ea350010000800b8100000008ed88ec08ed00f011d16011000c7' +
    '0500010800eb00100066c705020108000800c70504010800008e1000b011e620b020e621b004e621' +
    'b001e621b0fee621b034e64366b89c2ee64088e0e64031db43bf0000070089d8b980000000f3abe8' +
    '4500000066baf601b0e0eee83900000066baf201b001ee664231c0ee6642ee6642ee66baf701b030' +
    'eeeca80874fbbe00000700b90001000066baf00166f36fe805000000fbf4faeba766baf701eca880' +
    '75fbc350b020e62058cf8db6000000000000000000000000ffff0000009acf00ffff00000092cf00' +
    '1700f8001000070100000800',
  'hex',
);

const DISK_BYTES = 2 ** 20;
const PACE_MS = 1;

/**
 * As it is, but for: the sector is the lowest octet of the number, and it does not wait between them (`hlt`).
 * Longer by two octets, which are taken from the padding behind its code.
 */
const SCATTERING = [
  ['c70500010800eb001000', 'c70500010800ed001000'], // where the timer's handler is
  ['e845000000', 'e847000000'], // call wait, twice
  ['e839000000', 'e83b000000'],
  ['31c0ee6642ee6642ee', '88d8ee664231c0ee6642ee'], // xor eax, eax ─▶ mov al, bl; out; inc dx; xor eax, eax
  ['fbf4faeba7', 'fb90faeba5'], // sti; nop; cli; jmp next
  ['58cf8db600000000', '58cf8db60000'],
].reduce((code, [from = '', to = '']) => {
  if (code.split(from).length !== 2) throw new Error(`not once in the guest: ${from}`);
  return code.replace(from, to);
}, COUNTING.toString('hex'));

/** A guest that writes as fast as it can: each number into one of 256 sectors, in turn. */
export function withScatteringGuest(use: (image: string) => Promise<void>): Promise<void> {
  return withImage(Buffer.from(SCATTERING, 'hex'), use);
}

export function withCountingGuest(use: (image: string) => Promise<void>): Promise<void> {
  return withImage(COUNTING, use);
}

/** For QEMU: the guest, and the disk, named "disk". */
export function countingArguments(image: string, file: string): string[] {
  return [
    ...['-kernel', image, '-device', 'isa-ide,id=legacy', '-device', 'ide-hd,drive=disk,bus=legacy.0'],
    ...['-drive', `if=none,id=disk,file=${file},format=raw,file.locking=off`],
  ];
}

export class SharedDisk {
  /** How often the count went back. */
  steps = 0;
  count = 0;
  readonly #fd: number;
  readonly #timer: NodeJS.Timeout;

  static async create(file: string): Promise<SharedDisk> {
    await writeFile(file, '');
    await truncate(file, DISK_BYTES);
    return new SharedDisk(file);
  }

  private constructor(file: string) {
    this.#fd = openSync(file, 'r');
    const octets = Buffer.alloc(4);
    this.#timer = setInterval(() => {
      readSync(this.#fd, octets, 0, octets.length, 0);
      const count = octets.readUInt32LE();
      if (count < this.count) this.steps++;
      this.count = count;
    }, PACE_MS);
  }

  close(): void {
    clearInterval(this.#timer);
    closeSync(this.#fd);
  }
}
