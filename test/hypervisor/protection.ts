// A domain that is protected by another one, as on two hosts, with a pipe in the place of the link: the saver's steps into
// the restorer's, one checkpoint at a time, its output held by its gates until the checkpoint is committed.

import { expect } from 'chai';
import type { SourceDomain, TargetDomain } from '../../src/hypervisor/port.js';
import { ChunkSource } from '../../src/restore/file-source.js';
import { openRestore, type RestoreSteps } from '../../src/restore/steps.js';
import { openSave, type SaveSteps } from '../../src/save/steps.js';
import type { StreamPiece, StreamSink } from '../../src/stream/flow.js';

class Pipe implements StreamSink {
  readonly #chunks: Uint8Array[] = [];
  #ended = false;
  #wake: () => void = () => undefined;

  write({ memory, start, end }: StreamPiece): Promise<void> {
    this.#chunks.push(memory.slice(start, end));
    this.#wake();
    return Promise.resolve();
  }

  boundary(): Promise<void> {
    return Promise.resolve();
  }

  drain(): Promise<void> {
    return Promise.resolve();
  }

  end(): void {
    this.#ended = true;
    this.#wake();
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const chunk = this.#chunks.shift();
      if (chunk) yield chunk;
      else if (this.#ended) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }
}

export class Protection {
  /** Pages of each checkpoint, but for what was sent ahead of the first pause. */
  readonly dirtyPages: number[] = [];
  readonly #source: SourceDomain;
  readonly #target: TargetDomain;
  readonly #pipe: Pipe;
  readonly #save: SaveSteps;
  #restore: RestoreSteps | null = null;

  /** The source's gates hold. */
  static async begin(source: SourceDomain, target: TargetDomain): Promise<Protection> {
    const pipe = new Pipe();
    await source.disks?.attach();
    const save = await openSave({
      domain: source,
      sink: pipe,
      streamType: 'remus',
      live: true,
      callbacks: {
        prepareSuspend: async () => source.prepareSuspend?.(),
        suspend: () => source.suspend(),
        postcopy: () => source.resume(),
      },
    });
    return new Protection(source, target, pipe, save);
  }

  private constructor(source: SourceDomain, target: TargetDomain, pipe: Pipe, save: SaveSteps) {
    this.#source = source;
    this.#target = target;
    this.#pipe = pipe;
    this.#save = save;
  }

  /** One more checkpoint, committed and released; `inPause` is called while the source is suspended for it. */
  async checkpoint(inPause: () => unknown = () => undefined): Promise<void> {
    const { gates = [] } = this.#source;
    expect(await this.#save.capture()).to.equal('captured');
    const epoch = this.dirtyPages.length;
    for (const gate of gates) await gate.seal(epoch);
    await inPause();
    expect(await this.#source.stoodStill?.()).to.not.equal(false);
    await this.#save.resume();
    this.dirtyPages.push((await this.#save.send()).dirtyPages);
    this.#restore ??= await openRestore({
      domain: this.#target,
      source: new ChunkSource(this.#pipe.chunks()),
      streamType: 'remus',
      disks: { streamUuid: 'of the protection' },
      callbacks: {},
    });
    expect(await this.#restore.receive()).to.deep.equal({ kind: 'checkpoint', epoch });
    expect(await this.#restore.commit()).to.have.property('kind', 'applied');
    for (const gate of gates) await gate.release(epoch);
  }

  /** The link is lost: the target can be started, and is as of the last checkpoint. The source is let go of. */
  async breakOff(): Promise<void> {
    this.#pipe.end();
    const restore = this.#restore;
    if (!restore) throw new Error('there was no checkpoint');
    expect(await restore.receive()).to.deep.equal({ kind: 'broken', cause: null });
    const last = this.dirtyPages.length - 1;
    expect(await restore.breakOff(null)).to.deep.equal({ kind: 'failover', epoch: last });
    await this.close();
  }

  /** Given up: source and target are let go of as they are. */
  async close(): Promise<void> {
    expect(await this.#restore?.close(null)).to.not.be.instanceOf(Error);
    expect(await this.#save.close(null)).to.equal(null);
  }
}
