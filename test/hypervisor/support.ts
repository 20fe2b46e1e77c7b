// What the tests of domains share, whatever hypervisor these have: a console that can be waited on, small images.

import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  HypervisorError,
  type Domain,
  type DomainEvent,
  type HypervisorErrorCode,
} from '../../src/hypervisor/port.js';
import { temporaryDirectory } from '../support/temporary.js';

export const MIB = 1024 * 1024;

/** All that a domain said, and the means to wait for it. */
export class Console {
  text = '';
  private waiting: { readonly found: () => boolean; readonly resolve: () => void }[] = [];

  constructor(domain: Domain) {
    domain.output$.subscribe((bytes) => {
      this.text += Buffer.from(bytes).toString('latin1');
      this.waiting = this.waiting.filter((wait) => {
        if (!wait.found()) return true;
        wait.resolve();
        return false;
      });
    });
  }

  until(found: () => boolean): Promise<void> {
    if (found()) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ found, resolve }));
  }

  untilText(text: string): Promise<void> {
    return this.until(() => this.text.includes(text));
  }

  /** The numbers of the ticks that were said, whole lines only. */
  ticks(): number[] {
    return [...this.text.matchAll(/^tick (\d+) ok\r?$/gm)].map((match) => Number(match[1]));
  }
}

export function firstEvent(domain: Domain): Promise<DomainEvent> {
  return new Promise((resolve) => {
    domain.events$.subscribe(resolve);
  });
}

export async function expectCode(
  promise: Promise<unknown>,
  code: HypervisorErrorCode,
  text = '',
): Promise<HypervisorError> {
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    expect(error.code, error.message).to.equal(code);
    expect(error.message).to.include(text);
    return error;
  }
  throw new Error(`it should have failed with ${code}`);
}

/** The numbers of the ticks that the text tells, in order; a tick that found its memory bad fails. */
export function ticksOf(text: string): number[] {
  expect(text).to.not.include('BAD');
  return [...text.matchAll(/tick (\d+) ok\r?\n/g)].map((match) => Number(match[1]));
}

/** As ticksOf; fails, too, if one is not the one after the one before. */
export function successiveTicksOf(text: string): number[] {
  const ticks = ticksOf(text);
  const [first = 0] = ticks;
  expect(ticks).to.deep.equal(ticks.map((_, index) => first + index));
  return ticks;
}

/** Runs `use` with the name of a file that holds `code` as a multiboot image, loaded and entered at 1 MiB. */
export async function withImage(code: Uint8Array, use: (file: string) => Promise<void>): Promise<void> {
  const loadAt = 0x100000;
  const headerBytes = 32;
  const image = Buffer.alloc(headerBytes + code.length);
  const flags = 0x10000; // the header says where to load and to enter
  image.writeUInt32LE(0x1badb002, 0);
  image.writeUInt32LE(flags, 4);
  image.writeInt32LE(-(0x1badb002 + flags) | 0, 8);
  image.writeUInt32LE(loadAt, 12); // this header
  image.writeUInt32LE(loadAt, 16); // first octet
  image.writeUInt32LE(loadAt + image.length, 20); // end of what is loaded
  image.writeUInt32LE(loadAt + image.length, 24); // end of what is cleared
  image.writeUInt32LE(loadAt + headerBytes, 28); // entry
  image.set(code, headerBytes);
  const folder = await temporaryDirectory('romulus-image-');
  try {
    const file = join(folder, 'image');
    await writeFile(file, image);
    await use(file);
  } finally {
    await rm(folder, { recursive: true });
  }
}
