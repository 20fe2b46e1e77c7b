// A client of the guest's counter, run as a program on a host of the lab. Each of its connections has one request under
// way, never more.
//
//   lab-client.js count ADDRESS PORT   one connection. Says "K MS" for each reply, when it came; ends, with what was
//                                      wrong, at a reply that is not the one before plus 1, a reset, a close
//   lab-client.js load ADDRESS N       N connections, replies not looked at
//
// Whoever runs it ends it.

import { connect, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';

const COUNTER_PORT = 7;

function converse(
  address: string,
  port: number,
  replied: (line: string) => void,
  over: (why: string) => void,
): Socket {
  const socket = connect(port, address);
  socket.setNoDelay(true);
  let text = '';
  socket.on('connect', () => socket.write('inc\n'));
  socket.on('data', (bytes) => {
    text += bytes.toString('latin1');
    if (!text.endsWith('\n')) return;
    const line = text.slice(0, -1);
    text = '';
    replied(line);
    socket.write('inc\n');
  });
  socket.on('error', (error) => over(error.message));
  socket.on('close', () => over('closed'));
  return socket;
}

function end(why: string): never {
  process.stderr.write(`${why}\n`);
  process.exit(1);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , mode, address = '', number = ''] = process.argv;
  if (mode === 'load') {
    for (let k = 0; k < Number(number); k++) converse(address, COUNTER_PORT, () => undefined, end);
  } else {
    let last: number | null = null;
    converse(
      address,
      Number(number),
      (line) => {
        // Two replies at once would be two lines here, and no number.
        const value = /^\d+$/.test(line) ? Number(line) : NaN;
        if (last === null ? value !== 1 : value !== last + 1) {
          end(`the reply after ${String(last)} is ${JSON.stringify(line)}`);
        }
        last = value;
        process.stdout.write(`${value} ${Date.now()}\n`);
      },
      end,
    );
  }
}
