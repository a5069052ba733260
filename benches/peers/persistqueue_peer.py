"""persist-queue's SQLiteAckQueue: put, get (marks as unacknowledged), ack (marks as acknowledged)."""

from persistqueue import Empty, SQLiteAckQueue

import drive


class Peer:
    def open(self, directory, case):
        self.queue = SQLiteAckQueue(f"{directory}/persistqueue", multithreading=True, timeout=60)
        for connection in {self.queue._getter, self.queue._putter}:
            connection.execute(f"PRAGMA synchronous={case.sync.upper()}")

    def send(self, _worker, bodies):
        for text in bodies:
            self.queue.put(text)

    def receive(self, _worker, maximum):
        messages = []
        try:
            while len(messages) < maximum:
                item = self.queue.get(block=False, raw=True)
                messages.append((item["pqid"], item["data"]))
        except Empty:
            pass
        return messages

    def delete(self, _worker, receipts):
        for receipt in receipts:
            self.queue.ack(id=receipt)

    def left(self):
        return self.queue.ready_count() + self.queue.unack_count()

    def settings(self):
        [journal] = self.queue._putter.execute("PRAGMA journal_mode").fetchone()
        [synchronous] = self.queue._putter.execute("PRAGMA synchronous").fetchone()
        return drive.settings(journal, synchronous)


drive.main(Peer())
