"""
Crawls the pages of C{pages.py} with Scrapy: C{crawl.py PORT [REACTOR]}. REACTOR is Scrapy's setting
C{TWISTED_REACTOR}; without it, Scrapy's default is used. It prints the number of pages, that of
different ones, that of failed requests, and the reactor.
"""

import sys

from scrapy import Spider
from scrapy.crawler import CrawlerProcess

PORT = sys.argv[1]
SETTINGS = {
    "CONCURRENT_REQUESTS": 32,
    "CONCURRENT_REQUESTS_PER_DOMAIN": 32,
    "DOWNLOAD_DELAY": 0,
    "LOG_LEVEL": "WARNING",
    "RETRY_ENABLED": False,
    "REMOTE_CONTROL_ENABLED": False,  # It needs asyncio, and warns without it.
    "ROBOTSTXT_OBEY": False,
    "TELNETCONSOLE_ENABLED": False,
}
if sys.argv[2:]:
    SETTINGS["TWISTED_REACTOR"] = sys.argv[2]

pages = []


class Pages(Spider):
    name = "pages"
    start_urls = [f"http://127.0.0.1:{PORT}/0"]

    def parse(self, response):
        pages.append(response.url)
        yield from response.follow_all(css="a", callback=self.parse)


process = CrawlerProcess(SETTINGS)
crawler = process.create_crawler(Pages)
process.crawl(crawler)
process.start()

from twisted.internet import reactor  # noqa: E402

failed = crawler.stats.get_value("downloader/exception_count", 0)
print(len(pages), len(set(pages)), failed, type(reactor).__name__)
