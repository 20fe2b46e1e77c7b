// Two agents, and a guest with several writers: whenever its standby has committed a checkpoint, the standby's image is
// the owner's as of that checkpoint's pause; and the other way round after a switchover.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { codeOf } from '../../../../src/errors.js';
import type { SourceDomain, TargetDomain } from '../../../../src/hypervisor/port.js';
import { openQemuSource, openQemuTarget, type QemuConfig } from '../../../../src/hypervisor/qemu/index.js';
import { TwoAgents } from '../../../service/two-agents.js';
import { Cleanup } from '../../../support/cleanup.js';
import { until } from '../../../support/until.js';
import { needQemu } from '../support.js';
import { imageOf, writersArguments } from './lab.js';
import { needQemuTools } from './support.js';

const PATIENCE_MS = 40_000;
const COMMITS = 25;

describe('qemu disks: two agents', function () {
  this.timeout(3 * PATIENCE_MS);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  it('each commit is the disk as of its pause; also the other way round', async () => {
    const images = { alpha: await imageOf(cleanup, 'raw'), beta: await imageOf(cleanup, 'raw') };
    /** Of the owner's image, as of each of its pauses. */
    let pauses: Buffer[] = [];
    const watched = (domain: SourceDomain, image: string): void => {
      const suspend = domain.suspend.bind(domain);
      domain.suspend = async () => {
        await suspend();
        pauses.push(readFileSync(image));
      };
    };
    const configOf = (name: string, image: string): QemuConfig => ({
      ...{ name, memoryBytes: 16 * 2 ** 20, accelerator: 'tcg', cpus: 2, dirty: 'compare' },
      arguments: writersArguments(`file=${image},format=raw`),
    });
    let standby: keyof typeof images = 'beta';
    const two = await TwoAgents.start(cleanup, {
      hypervisor: { kind: 'qemu', memory: '16MiB' },
      hypervisors: {
        openSource: async ({ name }) => {
          const source = await openQemuSource(configOf(name, images.alpha));
          watched(source, images.alpha);
          return source;
        },
        openTarget: async ({ name }) => {
          const image = images[standby];
          const target: TargetDomain = await openQemuTarget(configOf(name, image));
          const source = target.source.bind(target);
          let isWatched = false;
          target.source = () => {
            const domain = source();
            if (!isWatched) watched(domain, image);
            isWatched = true;
            return domain;
          };
          return target;
        },
      },
    });
    let compared = 0;
    let different = 0;
    let streamUuid = '';
    for (const host of ['alpha', 'beta'] as const) {
      two.agent(host).commits$.subscribe((commit) => {
        // Of the first stream of each direction: its epochs are the pauses.
        if (streamUuid === '') ({ streamUuid } = commit);
        const pause = pauses[commit.epoch];
        if (commit.streamUuid !== streamUuid || !pause) return;
        compared++;
        if (!readFileSync(images[host]).equals(pause)) different++;
      });
    }
    await until('commits', () => compared >= COMMITS, PATIENCE_MS);
    expect(different).to.equal(0);
    expect(pauses[1]?.equals(pauses[COMMITS - 1] ?? Buffer.alloc(0)), 'it writes').to.equal(false);

    standby = 'alpha';
    await switchOver(two);
    [pauses, compared, streamUuid] = [[], 0, ''];
    await two.paired();
    await until('commits', () => compared >= COMMITS, PATIENCE_MS);
    expect(different).to.equal(0);
  });
});

/** Where both hosts are one process that compares images, neither is always on time: asked again. */
async function switchOver(two: TwoAgents): Promise<void> {
  for (let isSwitched = false; !isSwitched;) {
    await two.paired();
    isSwitched = await two
      .agent('alpha')
      .switchover('web')
      .then(
        () => true,
        (error: unknown) => {
          expect(codeOf(error)).to.equal('NOT_PAIRED');
          return false;
        },
      );
  }
}
