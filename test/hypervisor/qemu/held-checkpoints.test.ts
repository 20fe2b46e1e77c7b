// Which failures of a load lead back to the checkpoint before: only that QEMU has seen the state and does not take it.

import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { HeldCheckpoints } from '../../../src/hypervisor/qemu/state/held-checkpoints.js';
import { PlainAccess } from '../../../src/hypervisor/qemu/memory/ram-access.js';
import type { Occupant, Seat } from '../../../src/hypervisor/qemu/process/seat.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { expectCode } from '../support.js';

const PAGES = 4;
const state = (name: string): Buffer => Buffer.from(`QEVM\0\0\0\x03\x04${name}\0`, 'latin1');

describe('qemu: the checkpoints of a standby', () => {
  let folder = '';
  let fd = -1;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'romulus-held-'));
    writeFileSync(join(folder, 'ram'), Buffer.alloc(PAGES * PAGE_SIZE, 1));
    fd = openSync(join(folder, 'ram'), 'r+');
  });
  afterEach(() => {
    closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  function held() {
    const ram = new PlainAccess(fd);
    const failure: { code: 'BAD_CONTEXT' | 'FAILED' | 'DOMAIN_GONE' | null; left: number } = {
      code: null,
      left: Infinity,
    };
    const loader = {
      holds: null,
      load: () =>
        failure.code === null || failure.left-- <= 0
          ? Promise.resolve()
          : Promise.reject(new HypervisorError(failure.code, 'it does not work')),
    };
    // A seat whose QEMUs fail as they are told; the memory is real.
    const seat = {
      claim: () => Promise.resolve({ machine: {}, loader }),
      clear: () => Promise.resolve(),
    } as unknown as Seat;
    const occupant = { memory: { tracking: { ram } }, loaded: () => undefined } as unknown as Occupant;
    const warnings: string[] = [];
    const warn = (warning: string): void => void warnings.push(warning);
    const checkpoints = new HeldCheckpoints(seat, occupant, {
      pages: PAGES,
      loads: 'each',
      goesBack: true,
      warn,
    });
    const commit = async (name: string, fill: number): Promise<Buffer> => {
      const frames = Uint32Array.of(1, 3);
      const pages = Buffer.alloc(2 * PAGE_SIZE, fill);
      await checkpoints.writing(frames, 2);
      await ram.write(frames, 2, pages);
      const context = state(name);
      await checkpoints.try(await checkpoints.accept(context));
      return context;
    };
    const fillOf = (): number | undefined => readFileSync(join(folder, 'ram'))[PAGE_SIZE];
    return { checkpoints, commit, failure, fillOf, warnings };
  }

  it('a state that is refused: back to the one before', async () => {
    const { checkpoints, commit, failure, fillOf } = held();
    const first = await commit('first', 2);
    failure.code = 'BAD_CONTEXT';
    await expectCode(commit('second', 3), 'BAD_CONTEXT');
    expect(checkpoints.current?.context).to.equal(first);
    expect(checkpoints.back).to.equal(1);
    expect(fillOf()).to.equal(2);
  });

  for (const code of ['FAILED', 'DOMAIN_GONE'] as const) {
    it(`no QEMU that could say so (${code}): the last one is kept, on trial and at the takeover`, async () => {
      const { checkpoints, commit, failure, fillOf, warnings } = held();
      await commit('first', 2);
      failure.code = code;
      const second = await commit('second', 3);
      expect(warnings.at(-1)).to.include('on trial');
      await expectCode(checkpoints.readyToRun(), code);
      expect(checkpoints.current?.context).to.equal(second);
      expect(checkpoints.back).to.equal(0);
      expect(fillOf()).to.equal(3);
      failure.code = null;
      await checkpoints.readyToRun();
      expect(checkpoints.current?.context).to.equal(second);
    });
  }

  it('no QEMU that could say so for a while: a takeover does not go back meanwhile', async () => {
    const { checkpoints, commit, failure, fillOf } = held();
    await commit('first', 2);
    failure.code = 'FAILED';
    const second = await commit('second', 3);
    failure.left = 2; // this state's; the one before could be loaded
    await expectCode(checkpoints.readyToRun(), 'FAILED');
    expect(checkpoints.current?.context).to.equal(second);
    expect(checkpoints.back).to.equal(0);
    expect(fillOf()).to.equal(3);
  });
});
