// What differs from a point: never less than was written since, and no more than since a point a little before.

import { expect } from 'chai';
import fc from 'fast-check';
import { CHUNK_BYTES, DirtyMap } from '../../src/disk/dirty-map.js';
import { DiskHistory } from '../../src/disk/history.js';

const CHUNKS = [40, 7];
const BYTES = CHUNKS.map((chunks) => chunks * CHUNK_BYTES);

type Step =
  | { kind: 'write'; disk: number; chunk: number }
  | { kind: 'capture'; renew: boolean }
  | { kind: 'durable'; back: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ kind: fc.constant('write' as const), disk: fc.nat(1), chunk: fc.nat(6) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('capture' as const), renew: fc.nat(20).map((n) => n === 0) }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('durable' as const), back: fc.nat(60) }) },
);

describe('disk: the history', () => {
  it('tells of every chunk that was written since a point, however many points there were', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 50, maxLength: 900 }), (steps) => {
        const history = new DiskHistory(BYTES);
        // For each point: when it was; for each chunk: when it was written last.
        const points: { stream: string; epoch: number; at: number }[] = [];
        const written = CHUNKS.map((chunks) => new Array<number>(chunks).fill(-1));
        let [stream, epoch, durable] = [0, 0, 0];
        for (const [now, each] of steps.entries()) {
          if (each.kind === 'write') {
            const map = new DirtyMap(BYTES[each.disk] ?? 0);
            map.mark(each.chunk * CHUNK_BYTES + 17, 1);
            history.touched(each.disk, map);
            (written[each.disk] ?? [])[each.chunk] = now;
          } else if (each.kind === 'capture') {
            if (each.renew) [stream, epoch] = [stream + 1, 0];
            history.captured(String(stream), epoch);
            points.push({ stream: String(stream), epoch: epoch++, at: now });
          } else {
            const index = points.length - 1 - each.back;
            const point = points[index];
            if (!point || index < durable) continue;
            history.durable(point.stream, point.epoch);
            durable = index;
          }
        }
        for (const [index, point] of points.entries()) {
          const maps = history.since(point.stream, point.epoch);
          if (index < durable) continue;
          // Those that are asked for are there, unless there are more streams than points.
          expect(maps, `${index} of ${points.length}`).to.not.equal(null);
          for (const [disk, map] of (maps ?? []).entries()) {
            const since = written[disk] ?? [];
            for (const [chunk, at] of since.entries()) {
              if (at > point.at) expect(map.has(chunk), `disk ${disk} chunk ${chunk}`).to.equal(true);
              if (at < 0) expect(map.has(chunk)).to.equal(false);
            }
          }
        }
        const last = points.at(-1);
        if (!last) return;
        const exact = history.since(last.stream, last.epoch) ?? [];
        for (const [disk, map] of exact.entries()) {
          const since = (written[disk] ?? []).map((at) => at > last.at);
          expect(Array.from({ length: map.chunks }, (_, c) => map.has(c))).to.deep.equal(since);
        }
      }),
      { numRuns: 50 },
    );
  });

  it('knows nothing of streams that it never had, nor of what it has forgotten', () => {
    const history = new DiskHistory(BYTES);
    history.captured('A', 0);
    expect(history.since('B', 0)).to.equal(null);
    expect(history.since('A', 0)?.every((map) => map.isEmpty)).to.equal(true);
    history.forget();
    expect(history.since('A', 0)).to.equal(null);
  });
});
